"""Commands of break-glass, by the HTTP API."""

import argparse
from urllib.parse import quote

from vault.commands.http import anonymous, call, has_token, session
from vault.commands.output import facts, show, table
from vault.errors import ConfigurationError

_COLUMNS = (
    *("id", "role", "regions", "state", "sealed_by", "sealed_at", "expires_at", "opened_by"),
    "revoked_by",
)


async def seal(args: argparse.Namespace) -> None:
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


async def open_sealed(args: argparse.Namespace) -> None:
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
