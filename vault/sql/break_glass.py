"""Sealed credentials: only the hash of each is kept."""

from datetime import datetime
from uuid import UUID

import asyncpg

from vault.domain.access import Principal
from vault.domain.credentials import Sealed
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
        where secret_hash = $1 and opened_at is null and revoked_at is null and expires_at > $2
        """
        + (" for update" if lock else ""),
        secret_hash,
        now,
    )
    if row is None:
        return None
    return Principal(f"break-glass:{row['id']}", row["role"], frozenset(row["regions"]))


async def set_opened(
    conn: Connection, secret_hash: bytes, token: UUID, *, by: str | None, now: datetime
) -> None:
    """Keep that it was opened, by whom and for which token; it never is again."""
    await conn.execute(
        """
        update break_glass set opened_at = $2, token = $3, opened_by = $4 where secret_hash = $1
        """,
        secret_hash,
        now,
        token,
        by,
    )


_COLUMNS = (
    "id, role, regions, sealed_by, sealed_at, expires_at, opened_at, opened_by, token, revoked_at,"
    " revoked_by"
)


def _sealed(row: asyncpg.Record) -> Sealed:
    return Sealed(**{**row, "regions": tuple(row["regions"])})


async def show(conn: Connection, identity: UUID, *, lock: bool = False) -> Sealed | None:
    """Return one, whatever its state; `lock` keeps others off it."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from break_glass where id = $1" + (" for update" if lock else ""),
        identity,
    )
    return _sealed(row) if row else None


async def page(
    conn: Connection, regions: list[str], before: tuple[datetime, UUID] | None, limit: int
) -> list[Sealed]:
    """Return those that reach any of the regions, newest first, that come after the cursor."""
    at, identity = before or (None, None)
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from break_glass
        where regions && $1 and ($2::timestamptz is null or (sealed_at, id) < ($2, $3))
        order by sealed_at desc, id desc limit $4
        """,
        regions,
        at,
        identity,
        limit,
    )
    return [_sealed(row) for row in rows]


async def revoke(conn: Connection, identity: UUID, by: str, now: datetime) -> None:
    """Revoke for ever, together with the token that it was opened for."""
    await conn.execute(
        """
        with revoked as (
            update break_glass set revoked_by = $2, revoked_at = $3
            where id = $1 and revoked_at is null returning token
        )
        update token t set revoked_at = coalesce(t.revoked_at, $3) from revoked r
        where t.id = r.token
        """,
        identity,
        by,
        now,
    )
