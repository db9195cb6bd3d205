"""Commands of approvals, by the HTTP API: the token says who asks and who agrees."""

import argparse
from urllib.parse import quote

from vault.client import call, session
from vault.commands.output import facts, show, table

_COLUMNS = ("id", "act", "subject", "region", "state", "requested_by", "expires_at", "reason")


async def request(args: argparse.Namespace) -> None:
    """Ask for an act."""
    fields = {
        "act": args.act,
        "subject": args.subject,
        "region": args.region,
        "reason": args.reason,
    }
    async with session() as http:
        approval = await call(http, "POST", "/v1/approvals", json=fields)
    show(approval, approval["id"], as_json=args.json)


async def listed(args: argparse.Namespace) -> None:
    """List what was asked for."""
    async with session() as http:
        page = await call(http, "GET", "/v1/approvals", params={"limit": str(args.limit)})
    show(page["data"], table(page["data"], _COLUMNS), as_json=args.json)


async def approve(args: argparse.Namespace) -> None:
    """Agree."""
    path = f"/v1/approvals/{quote(args.approval, safe='')}/actions/approve"
    async with session() as http:
        approval = await call(http, "POST", path)
    show(approval, facts(approval), as_json=args.json)
