"""Which migrations a database has had. Says nothing of what they do."""

import asyncpg

# Any number that nothing else in this database locks: "portvaul" in ASCII.
LOCK = 0x706F7274_7661756C


async def lock(connection: asyncpg.Connection) -> None:
    """Wait to be the only one who migrates; the session keeps the lock."""
    await connection.execute("select pg_advisory_lock($1)", LOCK)


async def unlock(connection: asyncpg.Connection) -> None:
    """Let the next one migrate."""
    if not connection.is_closed():
        await connection.execute("select pg_advisory_unlock($1)", LOCK)


async def exists(connection: asyncpg.Connection) -> bool:
    """Return whether this database was ever migrated."""
    return bool(await connection.fetchval("select to_regclass('migration') is not null"))


async def create(connection: asyncpg.Connection) -> None:
    """Make the table of what was applied, the first time."""
    if not await exists(connection):
        await connection.execute(
            "create table migration (name text primary key, sha256 bytea not null,"
            " applied_at timestamptz not null default now())"
        )


async def applied(connection: asyncpg.Connection) -> list[tuple[str, bytes]]:
    """Return names and digests in the order of their numbers."""
    rows = await connection.fetch('select name, sha256 from migration order by name collate "C"')
    return [(row["name"], row["sha256"]) for row in rows]


async def add(connection: asyncpg.Connection, name: str, digest: bytes) -> None:
    """Note one as applied, within the transaction that applies it."""
    await connection.execute("insert into migration (name, sha256) values ($1, $2)", name, digest)
