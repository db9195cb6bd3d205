"""What an Idempotency-Key of a principal asked for, and what it got."""

from datetime import datetime
from uuid import UUID

import asyncpg

from vault.sql.connection import Connection


async def find(conn: Connection, principal: str, key: str) -> asyncpg.Record | None:
    """Return `fingerprint` and `resource` of the request that used the key first."""
    return await conn.fetchrow(
        "select fingerprint, resource from idempotency where principal = $1 and key = $2",
        principal,
        key,
    )


async def insert(
    conn: Connection,
    principal: str,
    key: str,
    *,
    fingerprint: bytes,
    resource: UUID,
    now: datetime,
) -> bool:
    """Remember the result with the transaction that makes it; False when another was first."""
    done = await conn.execute(
        """
        insert into idempotency (principal, key, fingerprint, resource, created_at)
        values ($1, $2, $3, $4, $5) on conflict do nothing
        """,
        principal,
        key,
        fingerprint,
        resource,
        now,
    )
    return done == "INSERT 0 1"
