"""Bearer tokens: only the hash of each secret is kept."""

from datetime import datetime
from uuid import UUID

import asyncpg

from vault.domain.access import Principal
from vault.sql.connection import Connection


async def insert(
    conn: Connection,
    token: UUID,
    secret_hash: bytes,
    *,
    label: str,
    role: str,
    regions: list[str],
    created_at: datetime,
    expires_at: datetime | None,
) -> None:
    """Add a token."""
    await conn.execute(
        """
        insert into token (id, secret_hash, label, role, regions, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        token,
        secret_hash,
        label,
        role,
        regions,
        created_at,
        expires_at,
    )


async def find(conn: Connection, secret_hash: bytes, now: datetime) -> Principal | None:
    """Return the principal whose living token has this hash."""
    row = await conn.fetchrow(
        """
        select id, role, regions from token
        where secret_hash = $1 and revoked_at is null and (expires_at is null or expires_at > $2)
        """,
        secret_hash,
        now,
    )
    if row is None:
        return None
    return Principal(f"token:{row['id']}", row["role"], frozenset(row["regions"]))


async def every(conn: Connection) -> list[asyncpg.Record]:
    """Return all tokens without their hashes, oldest first."""
    return await conn.fetch(
        """
        select id, label, role, regions, created_at, expires_at, revoked_at
        from token order by created_at, id
        """
    )


async def revoke(conn: Connection, token: UUID, now: datetime) -> bool:
    """Revoke for ever; False when there is no such token. Safe to repeat."""
    row = await conn.fetchrow(
        "update token set revoked_at = coalesce(revoked_at, $2) where id = $1 returning id",
        token,
        now,
    )
    return row is not None
