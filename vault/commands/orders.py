"""`portvault order`: open, list, find, show, correct, move and end porting orders, over HTTP."""

import argparse
from argparse import ArgumentParser
from collections import deque
from typing import Any
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import facts, marked, show, tell
from vault.commands.parser import SUMMARIES, Tree, count, identity
from vault.domain.access import Purpose
from vault.domain.orders import ENDED, TRANSITIONS, PortType, Status
from vault.domain.regions import REGIONS

ORDERS_PAGE = 200


async def order_create(args: argparse.Namespace) -> None:
    """Open a porting order."""
    fields = {"region": args.region, "customer": args.customer, "numbers": args.number}
    if args.reference:
        fields["customer_reference"] = args.reference
    names = ("type", "losing_carrier", "gaining_carrier")
    fields |= {name: value for name in names if (value := getattr(args, name))}
    async with session() as http:
        order = await call(http, "POST", "/v1/orders", json=fields)
    _warn(order)
    show(order, order["id"], as_json=args.json)


def _warn(order: dict[str, Any]) -> None:
    """Say on the terminal, beside the answer, what is likely a mistake."""
    for warning in order["warnings"]:
        tell(f"portvault: warning: {warning['detail']}")


async def order_list(args: argparse.Namespace) -> None:
    """List the newest orders, page after page; what is personal stands in no address."""
    names = ("region", "status", "customer", "due_before")
    fields = {name: value for name in names if (value := getattr(args, name))}
    said = {"number": args.number, "customer_reference": args.reference}
    secret = {name: value for name, value in said.items() if value is not None}
    found, cursor = list[dict[str, Any]](), args.cursor
    async with session() as http:
        while len(found) < args.limit:
            query = {"limit": str(min(ORDERS_PAGE, args.limit - len(found)))}
            query |= {"details": "false" if args.brief else "true"}
            query |= {"cursor": cursor} if cursor else {}
            if secret:
                whole = {**fields, **secret}
                page = await call(http, "POST", "/v1/orders/search", params=query, json=whole)
            else:
                page = await call(http, "GET", "/v1/orders", params={**fields, **query})
            found += page["data"]
            if (cursor := page["next_cursor"]) is None:
                break
    shown = [_order_row(order) for order in found]
    show(found, marked(shown, _ORDER_COLUMNS), as_json=args.json)
    for word, why in _UNOPENED.items():
        if number := sum(order["details"] == word for order in found):
            tell(f"portvault: of {number} orders nothing is opened: {why}")
    if cursor is not None:
        tell(f"there are more: --cursor {cursor}")


_ORDER_COLUMNS = (
    *("id", "status", "number", "reference", "documents", "first goes", "region", "customer"),
    "created",
)
_UNOPENED = {
    "limit": "so many orders an hour are allowed, and they were opened",
    "elsewhere": "they may not leave their region for where you read",
    "damaged": "what is kept of their details is damaged: `portvault repair` says what to do",
    "later": "the region's log stands still, or its keys are being sealed; try again",
}


def _order_row(order: dict[str, Any]) -> dict[str, Any]:
    numbers, count = order["numbers_masked"] or [], order["number_count"] or 0
    none = "damaged" if order["details"] == "damaged" else "-"
    return {
        **order,
        "number": (numbers[0] if numbers else none) + (f" +{count - 1}" if count > 1 else ""),
        "reference": order["customer_reference"],
        "documents": order["document_count"],
        "first goes": (order["due_at"] or "-")[:10],
        "created": order["created_at"][:10],
    }


async def order_show(args: argparse.Namespace) -> None:
    """Show an order with its documents."""
    async with session() as http:
        order = await call(http, "GET", f"/v1/orders/{quote(args.order, safe='')}")
    _show_order(order, args)


async def order_numbers(args: argparse.Namespace) -> None:
    """Show an order's full numbers, one a line, to who says why."""
    headers = {"Access-Purpose": args.purpose}
    if args.reference:
        headers["Access-Reference"] = args.reference
    path = f"/v1/orders/{quote(args.order, safe='')}/numbers"
    async with session() as http:
        found = await call(http, "GET", path, headers=headers)
    show(found, "\n".join(found["numbers"]), as_json=args.json)


def _show_order(order: dict[str, Any], args: argparse.Namespace) -> None:
    text = facts({name: value for name, value in order.items() if name != "warnings"})
    if order["documents"]:
        columns = ("id", "kind", "custody", "size_bytes", "stored_at")
        text += "\n\n" + marked(order["documents"], columns)
    show(order, text, as_json=args.json)


async def order_correct(args: argparse.Namespace) -> None:
    """Correct what an order says."""
    said = {
        "numbers": args.number,
        "customer_reference": args.reference,
        "type": args.type,
        "losing_carrier": args.losing_carrier,
        "gaining_carrier": args.gaining_carrier,
        "customer": args.customer,
    }
    fields = {name: value for name, value in said.items() if value is not None}
    path = f"/v1/orders/{quote(args.order, safe='')}/actions/correct"
    async with session() as http:
        order = await call(http, "POST", path, json=fields)
    _warn(order)
    _show_order(order, args)


async def order_move(args: argparse.Namespace) -> None:
    """Move an order one step; which steps there are is the vault's to say."""
    fields = {"status": args.status, **({"effective_at": args.at} if args.at else {})}
    async with session() as http:
        order = await call(http, "PATCH", f"/v1/orders/{quote(args.order, safe='')}", json=fields)
    _show_order(order, args)


async def order_end(args: argparse.Namespace) -> None:
    """Move an order to its end, along the carrier's transitions."""
    target = Status.PORTED if args.end == "complete" else Status.CANCELLED
    path = f"/v1/orders/{quote(args.order, safe='')}"
    async with session() as http:
        order = await call(http, "GET", path)
        for status in _way(Status(order["status"]), target):
            order = await call(http, "PATCH", path, json={"status": status.value})
    _show_order(order, args)


def _way(old: Status, new: Status) -> list[Status]:
    """
    Return the shortest way from one status to another; the last step alone where there is none.

    An order that has ended is not reopened on the way: the vault is asked, and refuses.
    """
    if old in ENDED:
        return [] if old is new else [new]
    ways = deque([[old]])
    seen = {old}
    while ways:
        way = ways.popleft()
        if way[-1] is new:
            return way[1:]
        for status in sorted(TRANSITIONS[way[-1]] - seen):
            seen.add(status)
            ways.append([*way, status])
    return [new]


#: What ends an order is called otherwise than the status that it has then.
_ENDS = {"complete": Status.PORTED, "completed": Status.PORTED, "cancel": Status.CANCELLED}


def _status(text: str) -> str:
    """Return a status as it was written; for `type=`."""
    if text in set(Status):
        return text
    ended = _ENDS.get(text)
    hint = f"; an order that was ended by that command is {ended}" if ended else ""
    raise argparse.ArgumentTypeError(f"there is no status {text!r}: {', '.join(Status)}{hint}")


def _add_filters(command: ArgumentParser) -> None:
    statuses = [status.value for status in Status]
    command.add_argument("--status", metavar="STATUS", type=_status, help=", ".join(statuses))
    command.add_argument("--customer", help="the customer's id")
    command.add_argument(
        "--due-before", metavar="TIME", help="with a document that goes before this time or date"
    )
    command.add_argument(
        "--brief", action="store_true", help="open nothing: no number and no reference"
    )
    command.add_argument("--limit", type=count, default=50, help="so many at most (50)")
    command.add_argument("--cursor", help="go on behind an earlier list, which says how")


def add(above: Tree) -> None:
    """Add the commands of porting orders."""
    tree = above.group(
        "order",
        SUMMARIES["order"],
        "portvault order create --region uk --customer acme --number +442079460123",
    )
    create = tree.command(
        "create",
        order_create,
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
        order_list,
        "List the newest orders: number, reference, documents, and when the first of those goes.",
        "portvault order list --status exception --due-before 2026-07-01",
    )
    _add_filters(listed)
    listed.add_argument("--region", choices=REGIONS)
    listed.add_argument("--number", help="only those that move this number, E.164; with --region")
    listed.add_argument("--reference", help="only of this one, to the letter; with --region")
    find = tree.command(
        "find",
        order_list,
        "List the newest orders that move a number or have a reference.",
        "portvault order find --region uk --number +442079460123",
    )
    find.add_argument("--region", required=True, choices=REGIONS)
    sought = find.add_mutually_exclusive_group(required=True)
    sought.add_argument("--number", help="E.164")
    sought.add_argument("--reference", help="the customer's own, to the letter")
    _add_filters(find)
    show = tree.command(
        "show", order_show, "Show an order and its documents.", "portvault order show ID"
    )
    show.add_argument("order", type=identity, metavar="ORDER")
    numbers = tree.command(
        "numbers",
        order_numbers,
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
        order_correct,
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
        order_move,
        "Move an order one step, as the carrier says it stands.",
        "portvault order move ID foc-date-confirmed",
    )
    move.add_argument("order", type=identity, metavar="ORDER")
    statuses = [status.value for status in Status]
    move.add_argument("status", metavar="STATUS", type=_status, help=", ".join(statuses))
    move.add_argument(
        "--at",
        metavar="TIME",
        help="when it was ported or cancelled, as 2026-03-01T12:00:00Z (now)",
    )
    for end, what in (("complete", "The numbers were ported."), ("cancel", "Nothing was ported.")):
        ended = tree.command(
            end,
            order_end,
            f"{what} Starts the retention of the order's documents.",
            f"portvault order {end} ID",
            end=end,
        )
        ended.add_argument("order", type=identity, metavar="ORDER")
