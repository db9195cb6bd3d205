"""Bearer tokens: only the hash of each secret is kept."""

from datetime import datetime
from uuid import UUID

import asyncpg

from vault.domain.access import Principal
from vault.domain.credentials import Grant, Known
from vault.sql.connection import Connection


async def insert(
    conn: Connection,
    token: UUID,
    secret_hash: bytes,
    *,
    label: str,
    grant: Grant,
    created_by: str,
    created_at: datetime,
    expires_at: datetime | None,
) -> None:
    """Add a token."""
    await conn.execute(
        """
        insert into token (id, secret_hash, label, role, regions, customers, kinds, located,
            certificate, person, created_by, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        token,
        secret_hash,
        label,
        grant.role,
        sorted(grant.regions),
        _sorted(grant.customers),
        _sorted(grant.kinds),
        grant.located,
        grant.certificate,
        grant.person,
        created_by,
        created_at,
        expires_at,
    )


def _sorted(words: frozenset[str] | None) -> list[str] | None:
    return None if words is None else sorted(words)


async def regions_of(conn: Connection, token: UUID) -> frozenset[str]:
    """Return the regions that a token reaches; none where there is no such token."""
    regions: list[str] | None = await conn.fetchval(
        "select regions from token where id = $1", token
    )
    return frozenset(regions or ())


async def find(conn: Connection, secret_hash: bytes, now: datetime) -> Known | None:
    """
    Return whom a living token with this hash stands for, and note that it is used.

    The time of use is written once a minute at most, so that a busy token costs no commits.
    """
    row = await conn.fetchrow(
        """
        with found as (
            select id, role, regions, customers, kinds, located, certificate from token
            where secret_hash = $1 and revoked_at is null
                and (expires_at is null or expires_at > $2)
        ), used as (
            update token t set last_used_at = $2 from found f
            where t.id = f.id
                and (t.last_used_at is null or t.last_used_at < $2 - interval '1 minute')
        )
        select * from found
        """,
        secret_hash,
        now,
    )
    if row is None:
        return None
    principal = Principal(
        f"token:{row['id']}",
        row["role"],
        frozenset(row["regions"]),
        customers=None if row["customers"] is None else frozenset(row["customers"]),
        kinds=None if row["kinds"] is None else frozenset(row["kinds"]),
        located=row["located"],
    )
    return Known(principal, row["certificate"])


async def every(conn: Connection) -> list[asyncpg.Record]:
    """Return all tokens without their hashes, oldest first."""
    return await conn.fetch(
        """
        select id, label, role, regions, customers, kinds, located,
            encode(certificate, 'hex') certificate, person, created_by, created_at, expires_at,
            revoked_at, last_used_at
        from token order by created_at, id
        """
    )


async def rename(conn: Connection, token: UUID, label: str) -> bool:
    """Say what a token is called; False when there is no such token."""
    done = await conn.execute("update token set label = $2 where id = $1", token, label)
    return done == "UPDATE 1"


async def revoke(conn: Connection, token: UUID, now: datetime) -> bool:
    """Revoke for ever; False when there is no such token. Safe to repeat."""
    row = await conn.fetchrow(
        "update token set revoked_at = coalesce(revoked_at, $2) where id = $1 returning id",
        token,
        now,
    )
    return row is not None
