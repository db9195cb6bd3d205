"""`portvault token`: tokens, made and revoked by the operator on the vault's own machine."""

import argparse
import hashlib
import ssl
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from vault.actions.credentials import create_token, list_tokens, rename_token, revoke_token
from vault.commands.operator import opened, operator
from vault.commands.output import show, table, tell
from vault.commands.parser import SUMMARIES, Tree, count, identity, several
from vault.config.settings import load_config
from vault.domain.access import Role
from vault.domain.credentials import Grant
from vault.domain.documents import Kind
from vault.domain.people import named_person
from vault.domain.regions import REGIONS
from vault.errors import InvalidRequestError

# ---- Commands of tokens, for the operator on the machine. ---------------------------------------

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


def add(tree: Tree) -> None:
    """Add the commands of tokens."""
    group = tree.group(
        "token",
        SUMMARIES["token"],
        "portvault token create --role porting --region uk --label desk-1",
    )
    create = group.command(
        "create",
        token_create,
        "Make a token and print it, once.",
        "portvault token create --role dpo --region uk --person staff-7 --label office",
    )
    create.add_argument("--role", required=True, choices=[role.value for role in Role])
    create.add_argument(
        "--region",
        type=several(REGIONS),
        required=True,
        action="append",
        help=f"one, or several: uk,sg; there are {', '.join(REGIONS)}",
    )
    create.add_argument("--customer", action="append", help="only these customers (all)")
    create.add_argument(
        "--kind",
        type=several(Kind),
        action="append",
        help=f"only these kinds of documents (all): {', '.join(Kind)}",
    )
    create.add_argument("--located", choices=REGIONS, help="where it is used (its only region)")
    create.add_argument(
        "--certificate", type=Path, metavar="FILE", help="taken with this client certificate only"
    )
    create.add_argument(
        "--person",
        help="who holds it: the provider's subject, or the id the console shows; nobody agrees to "
        "what they ask for themselves, and of tokens that you make only those that name two people "
        "are two people's",
    )
    create.add_argument("--label", help="what it is for (the role)")
    create.add_argument("--days", type=count, help="how long it is good for (until revoked)")
    group.command("list", token_list, "List tokens.", "portvault token list")
    rename = group.command(
        "rename",
        token_rename,
        "Give a token another label; what it did before keeps the one of then.",
        "portvault token rename ID desk-2",
    )
    rename.add_argument("token", type=identity, metavar="ID")
    rename.add_argument("label", metavar="LABEL")
    revoke = group.command("revoke", token_revoke, "Revoke a token.", "portvault token revoke ID")
    revoke.add_argument("token", type=identity, metavar="ID")
