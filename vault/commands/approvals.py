"""Commands of approvals, by the HTTP API: the token says who asks and who agrees."""

import argparse
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import facts, show, table

_COLUMNS = (
    "id",
    "act",
    "subject",
    "region",
    "purpose",
    "reference",
    "days",
    "state",
    "requested_by",
    "approved_by",
    "ended_by",
    "expires_at",
    "reason",
)


async def request(args: argparse.Namespace) -> None:
    """Ask for an act."""
    fields = {
        "act": args.act,
        "subject": args.subject,
        "region": args.region,
        "reason": args.reason,
    }
    bound = {"purpose": args.purpose, "reference": args.reference, "days": args.days}
    fields |= {name: value for name, value in bound.items() if value is not None}
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
    await _act(args, "approve")


async def decline(args: argparse.Namespace) -> None:
    """Refuse."""
    await _act(args, "decline")


async def withdraw(args: argparse.Namespace) -> None:
    """Take one's own request back."""
    await _act(args, "withdraw")


async def _act(args: argparse.Namespace, how: str) -> None:
    path = f"/v1/approvals/{quote(args.approval, safe='')}/actions/{how}"
    async with session() as http:
        approval = await call(http, "POST", path)
    show(approval, facts(approval), as_json=args.json)
