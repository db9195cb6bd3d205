"""
Connections: one place that turns a database that is away into `DatabaseUnavailableError`.

Statements that are wrong still raise what asyncpg raises: those are our own bugs.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from keys.ground.postgres import AWAY, Connection, Pool
from vault.errors import DatabaseUnavailableError

__all__ = ["AWAY", "Connection", "Pool", "connection", "transaction"]


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection; raises `DatabaseUnavailableError` within the pool's time limits."""
    try:
        async with pool.acquire(timeout=5) as conn:
            yield conn
    except AWAY as error:
        raise DatabaseUnavailableError from error


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection inside a transaction that commits when the block ends well."""
    async with connection(pool) as conn, conn.transaction():
        yield conn


# ---- Which migrations a database has had. Says nothing of what they do. -------------------------

# Any number that nothing else in this database locks: "portvaul" in ASCII.
MIGRATIONS_LOCK = 0x706F7274_7661756C


async def lock_migrations(connection: asyncpg.Connection) -> None:
    """Wait to be the only one who migrates; the session keeps the lock."""
    await connection.execute("select pg_advisory_lock($1)", MIGRATIONS_LOCK)


async def unlock_migrations(connection: asyncpg.Connection) -> None:
    """Let the next one migrate."""
    if not connection.is_closed():
        await connection.execute("select pg_advisory_unlock($1)", MIGRATIONS_LOCK)


async def has_migrations(connection: asyncpg.Connection) -> bool:
    """Return whether this database was ever migrated."""
    return bool(await connection.fetchval("select to_regclass('migration') is not null"))


async def create_migrations(connection: asyncpg.Connection) -> None:
    """Make the table of what was applied, the first time."""
    if not await has_migrations(connection):
        await connection.execute(
            "create table migration (name text primary key, sha256 bytea not null,"
            " applied_at timestamptz not null default now())"
        )


async def applied_migrations(connection: asyncpg.Connection) -> list[tuple[str, bytes]]:
    """Return names and digests in the order of their numbers."""
    rows = await connection.fetch('select name, sha256 from migration order by name collate "C"')
    return [(row["name"], row["sha256"]) for row in rows]


async def add_migration(connection: asyncpg.Connection, name: str, digest: bytes) -> None:
    """Note one as applied, within the transaction that applies it."""
    await connection.execute("insert into migration (name, sha256) values ($1, $2)", name, digest)
