"""`portvault approval`, over HTTP: the token says who asks and who agrees."""

import argparse
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import facts, show, table
from vault.commands.parser import SUMMARIES, Tree, count, identity, reason
from vault.domain.access import Purpose
from vault.domain.approvals import REASONS, Act
from vault.domain.regions import REGIONS

# ---- Commands of approvals, by the HTTP API: the token says who asks and who agrees. ------------

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


def add(tree: Tree) -> None:
    """Add the commands of approvals."""
    group = tree.group(
        "approval",
        SUMMARIES["approval"],
        "portvault approval list",
    )
    request_command = group.command(
        "request",
        request,
        "Ask for an act that somebody else has to agree to, and print the request's id.",
        "portvault approval request --act hold.release --subject HOLD --region uk --reason C-7",
    )
    acts = [act.value for act in Act]
    request_command.add_argument(
        "--act", required=True, metavar="ACT", choices=acts, help=", ".join(acts)
    )
    request_command.add_argument("--subject", required=True, help="the id of what it is about")
    request_command.add_argument("--region", required=True, choices=REGIONS)
    request_command.add_argument(
        "--reason",
        type=reason(REASONS),
        required=True,
        help=f"the number of a case, or one of {', '.join(REASONS)}",
    )
    request_command.add_argument(
        "--purpose",
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help="why a disclosure reads, as disclose-to-authority",
    )
    request_command.add_argument(
        "--reference", help="the number of the case that a disclosure is for"
    )
    request_command.add_argument(
        "--days", type=count, help="how long a sealed credential can be opened"
    )
    listed_command = group.command(
        "list", listed, "List what was asked for.", "portvault approval list"
    )
    listed_command.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    approve_command = group.command(
        "approve",
        approve,
        "Agree to what somebody else asked for.",
        "portvault approval approve ID",
    )
    approve_command.add_argument("approval", type=identity, metavar="ID")
    decline_command = group.command(
        "decline",
        decline,
        "Refuse what somebody else asked for, agreed to or not.",
        "portvault approval decline ID",
    )
    decline_command.add_argument("approval", type=identity, metavar="ID")
    withdraw_command = group.command(
        "withdraw",
        withdraw,
        "Take a request of your own back, agreed to or not.",
        "portvault approval withdraw ID",
    )
    withdraw_command.add_argument("approval", type=identity, metavar="ID")
