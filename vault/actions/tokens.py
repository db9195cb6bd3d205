"""Bearer tokens: made by the operator, shown once, kept as a hash, revoked for ever."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from vault.actions.access import Access, recorded
from vault.actions.names import named
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.credentials import Grant, Known, check_grant
from vault.errors import InvalidRequestError, NotFoundError
from vault.sql import access as access_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection, connection, transaction

PREFIX = "pv_"
SECRET_BYTES = 32
LABEL_LENGTH_MAX = 64


def hash_secret(secret: str) -> bytes:
    """Return what is kept of a token; 256 random bits need no slow hash."""
    # Whatever was sent has a hash: what is no text is unknown, and no fault of ours.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def check_label(label: str) -> str:
    """Return a token's label, or raise `InvalidRequestError`."""
    if not 1 <= len(label) <= LABEL_LENGTH_MAX or not label.isprintable():
        raise InvalidRequestError(f"label must have 1 to {LABEL_LENGTH_MAX} printable characters")
    return label


async def create_token(
    vault: Vault,
    principal: Principal,
    grant: Grant,
    *,
    label: str,
    expires_at: datetime | None = None,
) -> tuple[UUID, str]:
    """Make a token and return its id and its secret, which is not kept and never shown again."""
    check_grant(grant, vault.config.regions)
    check_label(label)
    if expires_at is not None and expires_at <= vault.clock():
        raise InvalidRequestError("the token would have expired already")
    token, secret, now = vault.new_id(), PREFIX + secrets.token_urlsafe(SECRET_BYTES), vault.clock()
    async with (
        recorded(vault, principal, Action.TOKEN_CREATE, region=sorted(grant.regions)) as access,
        transaction(vault.pool) as conn,
    ):
        await access_sql.insert_token(
            conn,
            token,
            hash_secret(secret),
            label=label,
            grant=grant,
            created_by=principal.id,
            created_at=now,
            expires_at=expires_at,
        )
        await access_sql.note_name(conn, f"token:{token}", label, now)
        # Which token of which role it was: so the log shows who made whom.
        made = access.conclude_everywhere(f"{grant.role} token:{token}")
        await log_sql.insert_records(conn, made)
    return token, secret


async def list_tokens(vault: Vault, principal: Principal) -> list[dict[str, Any]]:
    """Return every token without its hash, with what who made it was called then."""
    async with (
        recorded(vault, principal, Action.TOKEN_LIST, region=vault.config.regions),
        connection(vault.pool) as conn,
    ):
        rows = [dict(row) for row in await access_sql.every_token(conn)]
    shown: list[dict[str, Any]] = await named(vault, rows)
    return shown


async def rename_token(vault: Vault, principal: Principal, token: UUID, label: str) -> None:
    """Give a token another label from now on; records of before keep the one they had."""
    check_label(label)
    async with _changing(vault, principal, Action.TOKEN_RENAME, token) as (access, conn):
        if not await access_sql.rename(conn, token, label):
            raise NotFoundError("there is no such token")
        await access_sql.note_name(conn, f"token:{token}", label, vault.clock())
        # Without the label: nothing in the log can be taken away.
        await log_sql.insert_records(conn, access.conclude_everywhere(f"token:{token}"))


@asynccontextmanager
async def _changing(
    vault: Vault, principal: Principal, action: Action, token: UUID
) -> AsyncIterator[tuple[Access, Connection]]:
    """Record a change of a token in the log of each region that it reaches."""
    async with connection(vault.pool) as conn:
        reached = await access_sql.regions_of_token(conn, token)
    served = [region for region in vault.config.regions if region in reached]
    # One that reaches none of ours, or no token at all, is recorded all the same.
    regions = served or vault.config.regions[:1]
    async with (
        recorded(vault, principal, action, region=regions) as access,
        transaction(vault.pool) as conn,
    ):
        yield access, conn


async def revoke_token(vault: Vault, principal: Principal, token: UUID) -> None:
    """Revoke; every process refuses the token within a second."""
    async with _changing(vault, principal, Action.TOKEN_REVOKE, token) as (access, conn):
        if not await access_sql.revoke_token(conn, token, vault.clock()):
            raise NotFoundError("there is no such token")
        await log_sql.insert_records(conn, access.conclude_everywhere(f"token:{token}"))


async def authenticate(vault: Vault, secret: str) -> Known | None:
    """Return whom a token stands for; None when it is unknown, expired or revoked."""
    return await authenticate_hash(vault, hash_secret(secret))


async def authenticate_hash(vault: Vault, hashed: bytes) -> Known | None:
    """Return whom the token of this hash stands for now; for who keeps no secret for later."""
    async with connection(vault.pool) as conn:
        return await access_sql.find_token(conn, hashed, vault.clock())
