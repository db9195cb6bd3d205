"""Sealed credentials: only the hash of each is kept."""

from datetime import datetime
from uuid import UUID

from vault.domain.access import Principal
from vault.sql.connection import Connection


async def insert(
    conn: Connection,
    identity: UUID,
    secret_hash: bytes,
    *,
    role: str,
    regions: list[str],
    sealed_by: str,
    sealed_at: datetime,
    expires_at: datetime,
) -> None:
    """Add one."""
    await conn.execute(
        """
        insert into break_glass
            (id, secret_hash, role, regions, sealed_by, sealed_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        identity,
        secret_hash,
        role,
        regions,
        sealed_by,
        sealed_at,
        expires_at,
    )


async def find(
    conn: Connection, secret_hash: bytes, now: datetime, *, lock: bool = False
) -> Principal | None:
    """Return whom a credential stands for that can still be opened; `lock` keeps others off."""
    row = await conn.fetchrow(
        """
        select id, role, regions from break_glass
        where secret_hash = $1 and opened_at is null and expires_at > $2
        """
        + (" for update" if lock else ""),
        secret_hash,
        now,
    )
    if row is None:
        return None
    return Principal(f"break-glass:{row['id']}", row["role"], frozenset(row["regions"]))


async def set_opened(conn: Connection, secret_hash: bytes, token: UUID, now: datetime) -> None:
    """Keep that it was opened, and for which token; it never is again."""
    await conn.execute(
        "update break_glass set opened_at = $2, token = $3 where secret_hash = $1",
        secret_hash,
        now,
        token,
    )
