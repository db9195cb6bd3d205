"""Whatever happens to who orders the log, no record is lost, doubled or moved."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tests.access_records import append, checkpoints, read_published
from tests.fixtures_server import Api
from tests.tlog_client import check_consistency, open_checkpoint
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import verify_region
from vault.actions.log_tiles import Tiles
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.tiles import consistency_runs

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
KILLS, SEQUENCERS = 4, 2
SEED = 20250301


@asynccontextmanager
async def sequencer(config: Config) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process that orders and publishes the log; it is killed at the end, if not before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.log_worker",
        str(config.home),
        config.database,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"working\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def places(vault: Vault) -> int:
    """Return how many records have their place."""
    found: int = await vault.pool.fetchval("select count(*) from log_leaf where region = 'uk'")
    return found


async def test_sequencers_are_killed_under_load(vault: Vault) -> None:
    """Two at once, each killed at any moment: the other goes on, and what was signed is kept."""
    chance, made, notes = random.Random(SEED), 0, list[str]()
    print(f"seed {SEED}")
    filling = True

    async def fill() -> None:
        nonlocal made
        while filling:
            await append(vault, 5)
            made += 5
            await asyncio.sleep(0.005)

    async def live_and_die() -> None:
        for _ in range(KILLS // SEQUENCERS):
            async with sequencer(vault.config) as process:
                seen = await places(vault)
                while await places(vault) == seen:
                    await asyncio.sleep(0.01)
                # It is busy now, with the records that came meanwhile or with their tiles.
                await asyncio.sleep(chance.uniform(0, 0.2))
                process.kill()
                await process.wait()
            # Another one may put a newer one in its place right now.
            with suppress(IndexError, FileNotFoundError):
                notes.append(checkpoints(bucket(vault))[-1].read_text())

    task = asyncio.create_task(fill())
    await asyncio.gather(*(live_and_die() for _ in range(SEQUENCERS)))
    filling = False
    await task
    while await sequence_log(vault, "uk"):
        pass
    await publish_log(vault, "uk")
    rows = await vault.pool.fetch("select index, record from log_leaf where region = 'uk'")
    assert sorted(row["index"] for row in rows) == list(range(made))
    assert len({row["record"] for row in rows}) == made
    assert (await verify_region(vault, COMPLIANCE, "uk")).good
    await check_published(vault, notes, made)


def bucket(vault: Vault) -> Path:
    """Return where the region's log lies in its bucket."""
    return vault.config.home / "objects" / "uk" / "log"


async def check_published(vault: Vault, notes: list[str], size: int) -> None:
    """Check the bucket as somebody does who knows nothing of us, with what was published before."""
    assert len(await read_published(bucket(vault), vault.signer.vkey)) == size
    note = checkpoints(bucket(vault))[-1].read_text()
    newest = open_checkpoint(note, vault.signer.vkey, "portvault/uk")
    tiles = Tiles(vault, "uk", newest[0], note)
    for note in notes:
        old, root = open_checkpoint(note, vault.signer.vkey, "portvault/uk")
        proof = [await tiles.hash_of(run) for run in consistency_runs(old, newest[0])]
        check_consistency(old, newest[0], root, newest[1], proof)


async def test_another_takes_over_within_seconds(vault: Vault) -> None:
    """Of two processes that order the log one dies; the other has the next record in no time."""
    async with sequencer(vault.config) as first, sequencer(vault.config):
        first.kill()
        await first.wait()
        await append(vault, 20)
        async with asyncio.timeout(10):
            while await places(vault) < 20:
                await asyncio.sleep(0.05)


#: Who orders the log, while it thinks: the session that a stopped process leaves behind.
_LEADS = """
    select true from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.granted and l.classid = x'6c6f6773'::int
        and a.state = 'idle in transaction'
"""


async def test_another_takes_over_from_one_that_is_stopped(
    vault: Vault, pool: asyncpg.Pool
) -> None:
    """A leader that neither works nor dies is relieved; when it goes on it changes nothing."""
    made = 0
    async with sequencer(vault.config) as first:
        while True:
            await append(vault, 200)
            made += 200
            first.send_signal(signal.SIGSTOP)
            if await pool.fetchval(_LEADS):
                break
            first.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while await places(vault) < made:
                await sequence_log(vault, "uk")
                await asyncio.sleep(0.1)
        first.send_signal(signal.SIGCONT)
        # It finds that its session is gone, and ends.
        await first.wait()
    await publish_log(vault, "uk")
    assert (await verify_region(vault, COMPLIANCE, "uk")).good
    await check_published(vault, [], made)


@pytest.mark.parametrize("days", [-400, 400])
async def test_a_clock_that_jumps_moves_nothing(api: Api, vault: Vault, days: int) -> None:
    """Records keep the order in which they came, whatever their times and the checkpoints' are."""
    now = datetime.now(UTC)
    jumped = replace(vault, clock=lambda: now + timedelta(days=days))
    sizes = []
    for one in (vault, jumped, vault, jumped):
        await append(one, 3, at=one.clock())
        await sequence_log(one, "uk")
        await publish_log(one, "uk")
        sizes.append(await places(vault))
    assert sizes == sorted(set(sizes))
    assert await jumped.pool.fetchval("select count(*) from log_checkpoint") == len(sizes)
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert verdict.good, verdict
    await check_published(vault, [], sizes[-1])
