"""Bearer tokens: made by the operator, shown once, kept as a hash, revoked for ever."""

import hashlib
import secrets
from datetime import datetime
from uuid import UUID

import asyncpg

from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.grants import Grant, Known, check_grant
from vault.errors import InvalidRequestError, NotFoundError
from vault.sql import log as log_sql
from vault.sql import names as names_sql
from vault.sql import tokens as tokens_sql
from vault.sql.connection import connection, transaction

PREFIX = "pv_"
SECRET_BYTES = 32
LABEL_LENGTH_MAX = 64


def hash_secret(secret: str) -> bytes:
    """Return what is kept of a token; 256 random bits need no slow hash."""
    # Whatever was sent has a hash: what is no text is unknown, and no fault of ours.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


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
    if not 1 <= len(label) <= LABEL_LENGTH_MAX or not label.isprintable():
        raise InvalidRequestError(f"label must have 1 to {LABEL_LENGTH_MAX} printable characters")
    if expires_at is not None and expires_at <= vault.clock():
        raise InvalidRequestError("the token would have expired already")
    token, secret, now = vault.new_id(), PREFIX + secrets.token_urlsafe(SECRET_BYTES), vault.clock()
    async with (
        recorded(vault, principal, Action.TOKEN_CREATE, region=sorted(grant.regions)) as access,
        transaction(vault.pool) as conn,
    ):
        await tokens_sql.insert(
            conn,
            token,
            hash_secret(secret),
            label=label,
            grant=grant,
            created_by=principal.id,
            created_at=now,
            expires_at=expires_at,
        )
        await names_sql.note(conn, f"token:{token}", label, now)
        # Which token of which role it was: so the log shows who made whom.
        made = access.conclude_everywhere(f"{grant.role} token:{token}")
        await log_sql.insert_records(conn, made)
    return token, secret


async def list_tokens(vault: Vault, principal: Principal) -> list[asyncpg.Record]:
    """Return every token without its hash."""
    async with (
        recorded(vault, principal, Action.TOKEN_LIST, region=vault.config.regions),
        connection(vault.pool) as conn,
    ):
        return await tokens_sql.every(conn)


async def revoke_token(vault: Vault, principal: Principal, token: UUID) -> None:
    """Revoke; every process refuses the token within a second."""
    async with connection(vault.pool) as conn:
        reached = await tokens_sql.regions_of(conn, token)
    served = [region for region in vault.config.regions if region in reached]
    async with (
        recorded(
            vault,
            principal,
            Action.TOKEN_REVOKE,
            # One that reaches none of ours, or no token at all, is recorded all the same.
            region=served or vault.config.regions[:1],
        ) as access,
        transaction(vault.pool) as conn,
    ):
        if not await tokens_sql.revoke(conn, token, vault.clock()):
            raise NotFoundError("there is no such token")
        await log_sql.insert_records(conn, access.conclude_everywhere(f"token:{token}"))


async def authenticate(vault: Vault, secret: str) -> Known | None:
    """Return whom a token stands for; None when it is unknown, expired or revoked."""
    return await authenticate_hash(vault, hash_secret(secret))


async def authenticate_hash(vault: Vault, hashed: bytes) -> Known | None:
    """Return whom the token of this hash stands for now; for who keeps no secret for later."""
    async with connection(vault.pool) as conn:
        return await tokens_sql.find(conn, hashed, vault.clock())
