"""Commands of tokens, for the operator on the machine."""

import argparse
import hashlib
import ssl
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from vault.actions.credentials import create_token, list_tokens, rename_token, revoke_token
from vault.commands.database import opened
from vault.commands.operator import operator
from vault.commands.output import show, table, tell
from vault.config.settings import load_config
from vault.domain.credentials import Grant
from vault.domain.people import named_person
from vault.errors import InvalidRequestError

_COLUMNS = (
    "id",
    "label",
    "role",
    "regions",
    "customers",
    "kinds",
    "located",
    "person",
    "created_by",
    "created_at",
    "last_used_at",
    "expires_at",
    "revoked_at",
)


async def token_create(args: argparse.Namespace) -> None:
    """Make a token; its secret is printed once and kept nowhere."""
    config = load_config()
    expires_at = datetime.now(UTC) + timedelta(days=args.days) if args.days else None
    regions = _words(args.region) or frozenset()
    grant = Grant(
        role=args.role,
        regions=regions,
        customers=_words(args.customer),
        kinds=_words(args.kind),
        located=args.located,
        certificate=_fingerprint(args.certificate) if args.certificate else None,
        person=named_person(config.oidc_issuer, args.person) if args.person else None,
    )
    async with opened(config) as vault:
        identity, secret = await create_token(
            vault,
            operator(config),
            grant,
            label=args.label or args.role,
            expires_at=expires_at,
        )
    made = {"id": str(identity), "token": secret, "role": args.role, "regions": sorted(regions)}
    if sys.stdout.isatty():
        tell("This is shown once; keep it in a file that only you can read.")
    show(made, secret, as_json=args.json)


def _words(given: Sequence[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset(word.strip() for item in given for word in item.split(",") if word.strip())


def _fingerprint(path: Path) -> bytes:
    """Return the SHA-256 of a certificate in a PEM file."""
    try:
        der = ssl.PEM_cert_to_DER_cert(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it holds no certificate"
        raise InvalidRequestError(f"{path} cannot be read: {reason}") from None
    return hashlib.sha256(der).digest()


async def token_list(args: argparse.Namespace) -> None:
    """List tokens, without secrets."""
    config = load_config()
    async with opened(config) as vault:
        rows = await list_tokens(vault, operator(config))
    show(rows, table(rows, _COLUMNS), as_json=args.json)


async def token_rename(args: argparse.Namespace) -> None:
    """Give a token another label."""
    identity = UUID(args.token)
    config = load_config()
    async with opened(config) as vault:
        await rename_token(vault, operator(config), identity, args.label)
    shown = {"id": str(identity), "label": args.label}
    show(shown, f"{identity} is called {args.label} from now on", as_json=args.json)


async def token_revoke(args: argparse.Namespace) -> None:
    """Revoke a token."""
    identity = UUID(args.token)
    config = load_config()
    async with opened(config) as vault:
        await revoke_token(vault, operator(config), identity)
    show({"id": str(identity), "revoked": True}, f"{identity} is revoked", as_json=args.json)
