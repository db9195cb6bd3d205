"""Credentials: bearer tokens that the operator makes, and break-glass. Only hashes are kept."""

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from vault.actions.access import Access, own_regions, recorded
from vault.actions.approvals import use
from vault.actions.log_publish import wait_published
from vault.actions.people import named
from vault.context import Vault
from vault.domain.access import BREAK_GLASS_ROLES, Action, Principal
from vault.domain.approvals import DAYS_MAX, Act, Terms
from vault.domain.credentials import Envelope, Grant, Known, check_grant, subject_of
from vault.domain.text import is_reference
from vault.errors import ForbiddenError, InvalidRequestError, NotFoundError
from vault.sql import access as access_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection, connection, transaction

# ---- Bearer tokens: made by the operator, shown once, kept as a hash, revoked for ever. ---------

TOKEN_PREFIX = "pv_"
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
    token, secret, now = (
        vault.new_id(),
        TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES),
        vault.clock(),
    )
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


# ---- Break-glass: a credential that was sealed ahead, for the day the identity provider is down.
#
# Sealing one takes four eyes. Opening it is possible once: it gives a token for an hour, is
# recorded under a published checkpoint before the token exists, and is as loud as the vault can
# be.

log = logging.getLogger(__name__)

BREAK_GLASS_PREFIX = "pvglass_"


async def create_envelope(
    vault: Vault,
    principal: Principal,
    *,
    role: str,
    regions: list[str],
    days: int,
    approval: UUID,
) -> tuple[UUID, str, datetime]:
    """Make a credential and return its secret, which is not kept; `approval` is of `subject_of`."""
    check_grant(Grant(role, frozenset(regions)), vault.config.regions)
    if role not in BREAK_GLASS_ROLES:
        raise InvalidRequestError(f"a {role} signs in at no identity provider; make a token")
    if not 1 <= days <= DAYS_MAX:
        raise InvalidRequestError(f"days must be 1 to {DAYS_MAX}")
    identity, secret = vault.new_id(), BREAK_GLASS_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    now = vault.clock()
    expires_at = now + timedelta(days=days)
    async with (
        recorded(vault, principal, Action.BREAK_GLASS_SEAL, region=sorted(set(regions))) as access,
        transaction(vault.pool) as conn,
    ):
        subject = subject_of(role, regions)
        terms = Terms(Act.BREAK_GLASS, subject, access.intent.region, days=days)
        await use(access, conn, approval, terms)
        await access_sql.insert_break_glass(
            conn,
            identity,
            hash_secret(secret),
            role=role,
            regions=sorted(set(regions)),
            sealed_by=principal.id,
            sealed_at=now,
            expires_at=expires_at,
        )
        await access_sql.note_name(conn, f"break-glass:{identity}", f"envelope for {role}", now)
        made = access.conclude_everywhere(f"{role} break-glass:{identity}")
        await log_sql.insert_records(conn, made)
    return identity, secret, expires_at


async def open_envelope(
    vault: Vault, secret: str, reference: str, opener: Principal | None = None
) -> tuple[str, datetime]:
    """
    Open a credential for a case, once; return a token of its role, and until when it is good.

    `opener` is who showed a credential of their own. Where nobody did, the token takes part in no
    act that takes four eyes, since nobody can say who holds it.
    """
    if not is_reference(reference):
        raise InvalidRequestError("reference must be the number of the incident")
    key = hash_secret(secret)
    async with connection(vault.pool) as conn:
        who = await access_sql.find_break_glass(conn, key, vault.clock())
    if who is None:
        raise _unknown()
    async with recorded(
        vault, who, Action.BREAK_GLASS_OPEN, region=own_regions(vault, who), reference=reference
    ) as access:
        await wait_published(access)
        token, made = vault.new_id(), TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        now = vault.clock()
        until = now + timedelta(seconds=vault.config.break_glass_seconds)
        async with transaction(vault.pool) as conn:
            # Of two who open it at once, the second finds it opened.
            if await access_sql.find_break_glass(conn, key, now, lock=True) is None:
                raise _unknown()
            await access_sql.insert_token(
                conn,
                token,
                hash_secret(made),
                label="break-glass",
                grant=Grant(who.role, who.regions),
                created_by=who.id,
                created_at=now,
                expires_at=until,
            )
            await access_sql.note_name(conn, f"token:{token}", f"break-glass {who.role}", now)
            by = opener.id if opener else None
            await access_sql.set_break_glass_opened(conn, key, token, by=by, now=now)
            said = f"{who.role} token:{token} opened by {by or 'nobody known'}"
            done = access.conclude_everywhere(said)
            await log_sql.insert_records(conn, done)
    vault.meter.signals["break-glass"] += 1
    log.critical(
        "BREAK-GLASS: %s opened as %s for %s, until %s", who.id, who.role, reference, until
    )
    return made, until


async def list_envelopes(
    vault: Vault, principal: Principal, before: tuple[datetime, UUID] | None, limit: int
) -> list[Envelope]:
    """Return a page of what was sealed for any of the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    async with (
        recorded(vault, principal, Action.BREAK_GLASS_LIST, region=mine),
        connection(vault.pool) as conn,
    ):
        return await access_sql.page_of_break_glass(conn, mine, before, limit)


async def revoke_envelope(vault: Vault, principal: Principal, identity: UUID) -> Envelope:
    """Revoke a credential, and the token that it was opened for; safe to repeat."""
    async with connection(vault.pool) as conn:
        found = await access_sql.show_break_glass(conn, identity)
    served = [region for region in vault.config.regions if found and region in found.regions]
    # Whoever is of one of its regions may; the decision looks at the first.
    served.sort(key=lambda region: region not in principal.regions)
    async with recorded(
        vault,
        principal,
        Action.BREAK_GLASS_REVOKE,
        region=served or None,
        reference=f"break-glass/{identity}",
    ) as access:
        async with transaction(vault.pool) as conn:
            # Who opens it meanwhile has ended then, and the statement after sees their token.
            await access_sql.show_break_glass(conn, identity, lock=True)
            await access_sql.revoke_break_glass(conn, identity, principal.id, vault.clock())
            done = access.conclude_everywhere(f"break-glass:{identity}")
            await log_sql.insert_records(conn, done)
        async with connection(vault.pool) as conn:
            envelope = await access_sql.show_break_glass(conn, identity)
        if envelope is None:
            raise NotFoundError
        return envelope


def _unknown() -> ForbiddenError:
    return ForbiddenError("this credential is unknown, expired or opened already")
