"""
Connections: one place that turns a database that is away into `DatabaseUnavailableError`.

Statements that are wrong still raise what asyncpg raises: those are our own bugs.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keys.rows import AWAY, Connection, Pool
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
