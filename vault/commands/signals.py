"""Commands of signals: what the porting system was told, and telling it again."""

import argparse
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import show, table

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
