"""`portvault signal`: what the porting system was told, over HTTP."""

import argparse
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import show, table
from vault.commands.parser import SUMMARIES, Tree, count, identity

# ---- Commands of signals: what the porting system was told, and telling it again. ---------------

_COLUMNS = ("id", "endpoint", "region", "type", "at", "state", "attempts", "last_failure")


async def listed(args: argparse.Namespace) -> None:
    """List signals."""
    query = {"limit": str(args.limit), **({"state": args.state} if args.state else {})}
    async with session() as http:
        page = await call(http, "GET", "/v1/signals", params=query)
    rows = page["data"]
    show(rows, table(rows, _COLUMNS), as_json=args.json)


async def replay(args: argparse.Namespace) -> None:
    """Send a signal again."""
    path = f"/v1/signals/{quote(args.signal, safe='')}/actions/replay"
    async with session() as http:
        done = await call(http, "POST", path)
    show(done, f"sent again to {done['endpoints']} endpoints", as_json=args.json)


STATES = ("waiting", "delivered", "dead")


def add(tree: Tree) -> None:
    """Add the commands of signals."""
    group = tree.group(
        "signal",
        SUMMARIES["signal"],
        "portvault signal list --state dead",
    )
    listed_command = group.command(
        "list",
        listed,
        "List signals and how their deliveries fare, newest first.",
        "portvault signal list --state dead",
    )
    listed_command.add_argument("--state", choices=STATES, help="only those")
    listed_command.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    replay_command = group.command(
        "replay",
        replay,
        "Send a signal again to every endpoint.",
        "portvault signal replay ID",
    )
    replay_command.add_argument("signal", type=identity, metavar="ID")
