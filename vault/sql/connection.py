"""
Connections: one place that turns a database that is away into `DatabaseUnavailableError`.

Statements that are wrong still raise what asyncpg raises: those are our own bugs.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from vault.errors import DatabaseUnavailableError


Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
Pool = asyncpg.Pool[asyncpg.Record]

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)


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
