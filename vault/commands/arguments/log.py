"""`portvault log`."""

import argparse

from vault.commands.arguments.tree import Tree, count
from vault.domain.access import Purpose
from vault.domain.regions import REGIONS


def add_log(tree: Tree) -> None:
    """Add the commands of the access log."""
    log = tree.group("log", "Look into the access log and verify it.", "portvault log verify")
    tail = log.command(
        "tail", "client.log_tail", "Show the newest records.", "portvault log tail --follow"
    )
    tail.add_argument("--region", choices=REGIONS, help="needed with several")
    tail.add_argument("--document", help="only of this document")
    tail.add_argument("--limit", type=count, default=20, help="1 to 200 (20)")
    tail.add_argument(
        "--follow", action="store_true", help="go on until stopped; leaves out readings of the log"
    )
    tail.add_argument("--interval", type=float, default=2.0, help=argparse.SUPPRESS)
    search = log.command(
        "search",
        "client.log_search",
        "Find records: about a document, by a person, for a purpose, refused, out of the region.",
        "portvault log search --order ID --action document.read",
    )
    search.add_argument("--region", choices=REGIONS, help="needed with several")
    search.add_argument("--document", help="everything about this document")
    search.add_argument("--order", help="everything about this order")
    search.add_argument("--principal", help="everything this person or machine did")
    search.add_argument("--purpose", help=f"reads for one of {', '.join(Purpose)}")
    search.add_argument("--action", help="only this action, as document.read or log.read")
    search.add_argument("--refused", action="store_true", help="only refusals")
    search.add_argument("--transfers", action="store_true", help="only what left its region")
    search.add_argument("--from", dest="since", metavar="TIME", help="from this time or date (UTC)")
    search.add_argument("--to", dest="until", metavar="TIME", help="before this time or date (UTC)")
    search.add_argument("--limit", type=count, default=1000, help="so many at most (1000)")
    verify = log.command(
        "verify", "operator.log_verify", "Check that nothing was edited.", "portvault log verify"
    )
    verify.add_argument("--region", choices=REGIONS)
