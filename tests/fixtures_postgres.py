"""
A real PostgreSQL for tests: one server a session, a fresh database a test.

The server is the embedded wheel without durability. `database` is copied from a template that was
migrated once a session, which costs some 30 ms; `empty_database` was not migrated.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from vault.adapters.postgres.cluster import NAME
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.migrate import migrate
from vault.sql.session import SERVICE_ROLE

TEMPLATE = "migrated"
#: To copy or drop a database waits for every backend of the server; one that stands still is an
#: error of the test that drops, and not the end of the whole run.
STATEMENT_SECONDS = 120.0
#: Durability costs nothing in memory: there the server is as safe as the vault asks of any.
MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 4 * 1024**3
_numbers = itertools.count(1)

Address = Callable[[str], str]


def memory() -> Path | None:
    """Return a directory in memory, None where there is little of it or none."""
    there = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN
    return MEMORY if there else None


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Run a server for the session; gives the address of a database by its name."""
    home: Path = tmp_path_factory.mktemp("postgres")
    if (place := memory()) is not None:
        home = Path(tempfile.mkdtemp(prefix="portvault-", dir=place))
    server = EmbeddedPostgres(home, durable=False)
    address = asyncio.run(server.start())
    yield lambda name: address.replace("/portvault?", f"/{name}?")
    asyncio.run(server.stop())
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def database_template(postgres_server: Address) -> str:
    """Migrate a database that the others are copied from."""

    async def build() -> None:
        await _execute(postgres_server, f"create database {TEMPLATE}")
        await migrate(postgres_server(TEMPLATE))

    asyncio.run(build())
    return TEMPLATE


@pytest.fixture
async def empty_database(postgres_server: Address) -> AsyncIterator[str]:
    """Give the address of a database with nothing in it."""
    async for address in fresh_database(postgres_server, "template0"):
        yield address


@pytest.fixture
async def database(postgres_server: Address, database_template: str) -> AsyncIterator[str]:
    """Give the address of a fresh database with the schema of this release."""
    async for address in fresh_database(postgres_server, database_template):
        yield address


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    """Give a pool of connections to `database`."""
    async with asyncpg.create_pool(database, min_size=1, max_size=10) as made:
        yield made


def as_service(owner: str) -> str:
    """Return the address at which the service logs in to the same database."""
    assert f"//{NAME}@" in owner
    return owner.replace(f"//{NAME}@", f"//{SERVICE_ROLE}@")


async def fresh_database(server: Address, template: str) -> AsyncIterator[str]:
    """Give the address of a new database, copied from a template; drop it afterwards."""
    name = f"test_{next(_numbers)}"
    # By its files: half the work, and what PostgreSQL keeps of its own tables comes along.
    await _execute(server, f"create database {name} template {template} strategy file_copy")
    yield server(name)
    await _execute(server, f"drop database {name} with (force)")


async def _execute(server: Address, statement: str) -> None:
    connection = await asyncpg.connect(server("portvault"), command_timeout=STATEMENT_SECONDS)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
