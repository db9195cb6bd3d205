"""Commands of break-glass, by the HTTP API."""

import argparse

from vault.client import anonymous, call, session
from vault.commands.output import show
from vault.errors import ConfigurationError


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
    async with anonymous() as http:
        made = await call(http, "POST", "/v1/break-glass/actions/open", json=fields)
    show(made, made["token"], as_json=args.json)
