"""The clock of the whole machine jumps by years, PostgreSQL's too: what is kept stays kept."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures_process import VaultProcess
from tests.retention_house import end, new_order, put
from vault.actions.expire import expire
from vault.adapters.postgres import launcher as postgres_launcher
from vault.adapters.postgres.cluster import NAME, Cluster, program_path
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.app import open_vault
from vault.config.settings import Config
from vault.domain.documents import Kind
from vault.migrate import migrate

DAYS = 1200
(LIBRARY,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
FAKED = {
    "LD_PRELOAD": str(LIBRARY),
    "FAKETIME": f"+{DAYS}d",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "DONT_FAKE_MONOTONIC": "1",
}
WAIT_SECONDS = 60


@asynccontextmanager
async def faked_postgres(home: Path) -> AsyncIterator[str]:
    """Run the home's own server as the vault does, with the faked clock; gives its address."""
    cluster = Cluster(home, durable=False)
    await cluster.prepare()
    identity = (cluster.account.pw_uid, cluster.account.pw_gid, os.getpid())
    process = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", postgres_launcher.__file__, *map(str, identity), "null"),
            # Not for root, whose semaphore the server's own account could not open.
            *("/usr/bin/env", *(f"{name}={value}" for name, value in FAKED.items())),
            *(str(program_path("postgres")), "-D", str(cluster.data), "-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={cluster.socket_directory()}"),
        ],
        env={"LC_ALL": "C", "TZ": "UTC"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield cluster.address(NAME)
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.wait)


async def answer(dsn: str, question: str, *values: object) -> object:
    """Return what the database says, once it answers."""
    for _ in range(WAIT_SECONDS * 10):
        try:
            conn = await asyncpg.connect(dsn, timeout=5)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.1)
            continue
        try:
            found: object = await conn.fetchval(question, *values)
            return found
        finally:
            await conn.close()
    raise AssertionError("the database does not answer")


async def kept(home: Path) -> UUID:
    """Make a vault at its real time, with a letter that has to go in a year; stop it again."""
    home.mkdir(mode=0o711)
    server = EmbeddedPostgres(home, durable=False)
    dsn = await server.start()
    try:
        await migrate(dsn)
        config = Config(home=home, regions=("uk",), reversal_grace_seconds=0.0, worker=False)
        async with open_vault(config, dsn=dsn) as vault:
            order = await new_order(vault)
            letter = await put(vault, order, Kind.LOA)
            await end(vault, order)
            while await expire(vault, "uk"):
                pass
    finally:
        await server.stop()
    return letter


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that every account can pass."""
    with tempfile.TemporaryDirectory(prefix="portvault-clock-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


async def test_a_machine_that_wakes_up_years_later_shreds_nothing(place: Path) -> None:
    """Vault and database agree on the wrong time; the worker says so, and shreds nothing."""
    home = place / "home"
    letter = await kept(home)
    custody = "select custody from document where id = $1"
    async with faked_postgres(home) as dsn:
        at = await answer(dsn, "select clock_timestamp()")
        assert isinstance(at, datetime)
        assert at > datetime.now(UTC) + timedelta(days=DAYS - 1)
        process = VaultProcess(home, database=dsn)
        process.environment |= FAKED
        await process.start()
        try:
            for _ in range(WAIT_SECONDS * 10):
                if "after the worker last looked at uk" in process.log.read_text():
                    break
                await asyncio.sleep(0.1)
            # All that it does by the clock has had its turn, and more than one.
            await asyncio.sleep(8)
            assert await answer(dsn, custody, letter) == "stored"
            assert "expire in uk: this machine's clock says" in process.log.read_text()
        finally:
            await process.stop()
        # Without the bound it would have gone: that the clock is faked is no pretence.
        process.environment["PORTVAULT_CLOCK_STEP_SECONDS_MAX"] = "1e12"
        await process.start()
        try:
            for _ in range(WAIT_SECONDS * 10):
                if await answer(dsn, custody, letter) != "stored":
                    break
                await asyncio.sleep(0.1)
            assert await answer(dsn, custody, letter) in {"shredded", "sealed"}
        finally:
            await process.stop()
