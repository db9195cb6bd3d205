"""
The access log, beside what bounds it, in one run on a durable PostgreSQL of its own.

Appends: records that are durable a second with so many waiters, beside bare commits of one row by
one connection, and bare commits of as many rows as there are waiters by one statement (unnest). The
records are made beforehand, since making one takes as long as appending it. Then what records add
to a read: in turn as it is, and with a recorder that writes nothing down. Then, with 32 waiters at
work: how long a record waits for its place under a signed checkpoint. Then, in a database of its
own, a log of BENCH_LOG_RECORDS records (200000): ordering a backlog, publishing it, exporting it,
auditing the export, verifying the database. Then looking records up in logs of BENCH_LOG_SEARCHED
records (200000), each in a database of its own.

    BENCH_LOG_RECORDS=1000000 BENCH_LOG_SEARCHED=1000000,10000000 ./scripts/bench log
"""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import uvloop

from tests.bench.log_appends import appends, lag, reads
from tests.bench.log_long import fill, long_log, searches
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.migrate import migrate

RECORDS = int(os.environ.get("BENCH_LOG_RECORDS", "200000"))
SEARCHED = [int(size) for size in os.environ.get("BENCH_LOG_SEARCHED", "200000").split(",")]


@asynccontextmanager
async def database(home: Path) -> AsyncIterator[str]:
    """Give a durable database of its own, with our tables."""
    postgres = EmbeddedPostgres(home)
    dsn = await postgres.start()
    try:
        await migrate(dsn)
        yield dsn
    finally:
        await postgres.stop()


@asynccontextmanager
async def opened(home: Path, dsn: str) -> AsyncIterator[tuple[Vault, asyncpg.Connection]]:
    """Give a vault without a worker, and a connection of the owner's."""
    config = Config(
        home=home, database=dsn, regions=("uk",), worker=False, database_timeout_seconds=3600.0
    )
    async with open_vault(config, dsn=dsn) as vault:
        owner = await asyncpg.connect(dsn)
        try:
            yield vault, owner
        finally:
            await owner.close()


async def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory(prefix="bench-log-") as place:
        home = Path(place) / "home"
        async with database(home) as dsn:
            await appends(dsn)
            async with opened(home, dsn) as (vault, _):
                await reads(vault)
                await lag(vault)
    with tempfile.TemporaryDirectory(prefix="bench-log-") as place:
        home = Path(place) / "home"
        async with database(home) as dsn, opened(home, dsn) as (vault, owner):
            await long_log(vault, owner, Path(place) / "export.jsonl", RECORDS)
    for size in SEARCHED:
        with tempfile.TemporaryDirectory(prefix="bench-log-") as place:
            home = Path(place) / "home"
            async with database(home) as dsn, opened(home, dsn) as (vault, owner):
                await fill(owner, size)
                await searches(vault, size)


if __name__ == "__main__":
    uvloop.run(main())
