"""`portvault fax`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree, count, identity
from vault.domain.regions import REGIONS


def add_faxes(above: Tree) -> None:
    """Add the commands of faxes."""
    tree = above.group("fax", "Pass faxes through, and look at receipts.", "portvault fax list")
    received = tree.command(
        "received",
        "hylafax.received",
        "Take a fax that HylaFAX received; exits with 0 only when the vault has it.",
        "portvault fax received --to +442079460123 -- recvq/fax1.tif ttyS0 0001 '' 02079460999",
    )
    received.add_argument("--to", help="the number that was called, E.164")
    received.add_argument(
        "--to-callid", type=count, metavar="N", help="the called number is the Nth CallID"
    )
    received.add_argument(
        "--callids-without-plus",
        action="store_true",
        help="the line gives numbers as country code and number, without a plus sign",
    )
    received.add_argument("--region", choices=REGIONS, help="where the number does not tell it")
    received.add_argument("qfile", type=Path, metavar="QFILE")
    received.add_argument("devid", metavar="DEVID")
    received.add_argument("commid", metavar="COMMID")
    received.add_argument("error_msg", metavar="ERROR-MSG")
    received.add_argument("callid", nargs="*", metavar="CALLID")
    drain = tree.command(
        "drain",
        "hylafax.drain",
        "Send again what the vault did not take while it was away.",
        "portvault fax drain /var/spool/hylafax/recvq",
    )
    drain.add_argument(
        "directory", type=Path, nargs="?", default=Path("/var/spool/hylafax/recvq"), metavar="DIR"
    )
    drain.add_argument("--to", help="the number that was called, for notes that do not name it")
    outbound = tree.command(
        "outbound",
        "hylafax.outbound",
        "Hand waiting outbound faxes to sendfax.",
        "portvault fax outbound",
    )
    outbound.add_argument("--sendfax", default="sendfax", metavar="PROGRAM")
    listed = tree.command(
        "list", "hylafax.fax_list", "List the newest faxes and receipts.", "portvault fax list"
    )
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    show = tree.command(
        "show", "hylafax.fax_show", "Show a fax, or its receipt.", "portvault fax show ID"
    )
    show.add_argument("fax", type=identity, metavar="FAX")
