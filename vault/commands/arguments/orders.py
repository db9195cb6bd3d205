"""`portvault order`."""

from argparse import ArgumentParser

from vault.commands.arguments.tree import Tree, count, identity
from vault.domain.access import Purpose
from vault.domain.orders import PortType, Status
from vault.domain.regions import REGIONS


def _add_filters(command: ArgumentParser) -> None:
    statuses = [status.value for status in Status]
    command.add_argument("--status", metavar="STATUS", choices=statuses, help=", ".join(statuses))
    command.add_argument("--customer", help="the customer's id")
    command.add_argument(
        "--due-before", metavar="TIME", help="with a document that goes before this time or date"
    )
    command.add_argument(
        "--brief", action="store_true", help="open nothing: no number and no reference"
    )
    command.add_argument("--limit", type=count, default=50, help="so many at most (50)")
    command.add_argument("--cursor", help="go on behind an earlier list, which says how")


def add_orders(above: Tree) -> None:
    """Add the commands of porting orders."""
    tree = above.group(
        "order",
        "Open, list, find, show, move, complete or cancel porting orders.",
        "portvault order create --region uk --customer acme --number +442079460123",
    )
    create = tree.command(
        "create",
        "client.order_create",
        "Open a porting order and print its id.",
        "portvault order create --region uk --customer acme --number +442079460123",
    )
    create.add_argument("--region", required=True, choices=REGIONS)
    create.add_argument("--customer", required=True, help="the customer's id, not a name")
    create.add_argument("--number", required=True, action="append", help="E.164; may be repeated")
    create.add_argument("--reference", help="the customer's own reference")
    create.add_argument(
        "--type", choices=[kind.value for kind in PortType], help="whether the whole account moves"
    )
    create.add_argument("--losing-carrier", help="who has the numbers now")
    create.add_argument("--gaining-carrier", help="who is to have them")
    listed = tree.command(
        "list",
        "client.order_list",
        "List the newest orders: number, reference, documents, and when the first of those goes.",
        "portvault order list --status exception --due-before 2026-07-01",
    )
    _add_filters(listed)
    listed.add_argument("--region", choices=REGIONS)
    listed.add_argument("--number", help="only those that move this number, E.164; with --region")
    listed.add_argument("--reference", help="only of this one, to the letter; with --region")
    find = tree.command(
        "find",
        "client.order_list",
        "List the newest orders that move a number or have a reference.",
        "portvault order find --region uk --number +442079460123",
    )
    find.add_argument("--region", required=True, choices=REGIONS)
    sought = find.add_mutually_exclusive_group(required=True)
    sought.add_argument("--number", help="E.164")
    sought.add_argument("--reference", help="the customer's own, to the letter")
    _add_filters(find)
    show = tree.command(
        "show", "client.order_show", "Show an order and its documents.", "portvault order show ID"
    )
    show.add_argument("order", type=identity, metavar="ORDER")
    numbers = tree.command(
        "numbers",
        "client.order_numbers",
        "Print the full numbers of an order, and say why; it is recorded.",
        "portvault order numbers ID --purpose submit-to-carrier",
    )
    numbers.add_argument("order", type=identity, metavar="ORDER")
    numbers.add_argument(
        "--purpose",
        required=True,
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help=", ".join(Purpose),
    )
    numbers.add_argument("--reference", help="the case, where the purpose needs one")
    correct = tree.command(
        "correct",
        "client.order_correct",
        "Correct what an order says; what is not named stays.",
        "portvault order correct ID --number +442079460124",
    )
    correct.add_argument("order", type=identity, metavar="ORDER")
    correct.add_argument("--number", action="append", help="all of them anew, E.164")
    correct.add_argument("--reference", help="the customer's own reference, or '' for none")
    correct.add_argument(
        "--type",
        metavar="TYPE",
        choices=[*(kind.value for kind in PortType), ""],
        help="full, partial, or '' for neither",
    )
    correct.add_argument("--losing-carrier", help="who has the numbers now")
    correct.add_argument("--gaining-carrier", help="who is to have them")
    correct.add_argument("--customer", help="whose it is, of one that a restore brought back")
    move = tree.command(
        "move",
        "client.order_move",
        "Move an order one step, as the carrier says it stands.",
        "portvault order move ID foc-date-confirmed",
    )
    move.add_argument("order", type=identity, metavar="ORDER")
    statuses = [status.value for status in Status]
    move.add_argument("status", metavar="STATUS", choices=statuses, help=", ".join(statuses))
    move.add_argument(
        "--at",
        metavar="TIME",
        help="when it was ported or cancelled, as 2026-03-01T12:00:00Z (now)",
    )
    for end, what in (("complete", "The numbers were ported."), ("cancel", "Nothing was ported.")):
        ended = tree.command(
            end,
            "client.order_end",
            f"{what} Starts the retention of the order's documents.",
            f"portvault order {end} ID",
            end=end,
        )
        ended.add_argument("order", type=identity, metavar="ORDER")
