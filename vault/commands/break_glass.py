"""`portvault break-glass`, over HTTP: access for the day the identity provider is down."""

import argparse
from pathlib import Path
from urllib.parse import quote

from vault.commands.http import anonymous, call, has_token, session
from vault.commands.output import facts, show, table
from vault.commands.parser import SUMMARIES, Tree, count, identity
from vault.domain.access import BREAK_GLASS_ROLES
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

# ---- Commands of break-glass, by the HTTP API. --------------------------------------------------

_COLUMNS = (
    *("id", "role", "regions", "state", "sealed_by", "sealed_at", "expires_at", "opened_by"),
    "revoked_by",
)


async def create_envelope(args: argparse.Namespace) -> None:
    """Make a credential; it is printed once and kept nowhere."""
    fields = {
        "role": args.role,
        "regions": args.region,
        "days": args.days,
        "approval": args.approval,
    }
    async with session() as http:
        made = await call(http, "POST", "/v1/break-glass", json=fields)
    show(made, made["credential"], as_json=args.json)


async def open_envelope(args: argparse.Namespace) -> None:
    """Open a credential, which comes from a file and never from the command line."""
    try:
        credential = args.credential_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"{args.credential_file} cannot be read: {reason}") from None
    fields = {"credential": credential, "reference": args.reference}
    async with session() if has_token() else anonymous() as http:
        made = await call(http, "POST", "/v1/break-glass/actions/open", json=fields)
    show(made, made["token"], as_json=args.json)


async def listed(args: argparse.Namespace) -> None:
    """List what was sealed."""
    async with session() as http:
        page = await call(http, "GET", "/v1/break-glass", params={"limit": str(args.limit)})
    show(page["data"], table(page["data"], _COLUMNS), as_json=args.json)


async def revoke(args: argparse.Namespace) -> None:
    """Revoke a credential by its id."""
    path = f"/v1/break-glass/{quote(args.credential, safe='')}/actions/revoke"
    async with session() as http:
        sealed = await call(http, "POST", path)
    show(sealed, facts(sealed), as_json=args.json)


_KNOWN = """\
Set PORTVAULT_TOKEN to a token of your own, so that it is known who opened it. The token
of an envelope that was opened by nobody known never asks for approvals or gives them."""


def add(tree: Tree) -> None:
    """Add the commands of break-glass."""
    group = tree.group(
        "break-glass",
        SUMMARIES["break-glass"],
        "portvault break-glass open --credential-file /mnt/envelope --reference INC-7",
    )
    seal_command = group.command(
        "seal",
        create_envelope,
        "Make a credential to be locked away, and print it, once; takes an approval of both.",
        "portvault break-glass seal --role dpo --region uk --days 365 --approval ID",
    )
    seal_command.add_argument(
        "--role", required=True, choices=[role.value for role in BREAK_GLASS_ROLES]
    )
    seal_command.add_argument("--region", required=True, action="append", choices=REGIONS)
    seal_command.add_argument("--days", required=True, type=count, help="how long it can be opened")
    seal_command.add_argument(
        "--approval", type=identity, required=True, help="of the act break-glass, for ROLE/REGION/…"
    )
    opened = group.command(
        "open",
        open_envelope,
        "Open a credential, once, and print a token; everybody is told.",
        "portvault break-glass open --credential-file /mnt/envelope --reference INC-7",
    )
    opened.add_argument("--credential-file", required=True, type=Path, metavar="FILE")
    opened.epilog = f"{opened.epilog}\n\n{_KNOWN}"
    opened.add_argument("--reference", required=True, help="the number of the incident")
    listed_command = group.command(
        "list", listed, "List sealed credentials.", "portvault break-glass list"
    )
    listed_command.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    revoke_command = group.command(
        "revoke",
        revoke,
        "Revoke a sealed credential, and the token it was opened for.",
        "portvault break-glass revoke ID",
    )
    revoke_command.add_argument("credential", type=identity, metavar="ID")
