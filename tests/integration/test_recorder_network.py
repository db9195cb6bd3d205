"""The recorder over a network that stalls: what was sent may be stored though nobody said so."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.access_records import record
from tests.fixtures_wire import Wire
from vault.adapters.committer import GroupRecorder
from vault.domain.records import Record
from vault.errors import RecordsUnavailableError

TIMEOUT_SECONDS = 1.0
SLACK_SECONDS = 1.5


@pytest.fixture
async def recorder(wire: Wire) -> AsyncIterator[GroupRecorder]:
    """Give a recorder over the wire, connected."""
    async with GroupRecorder(await wire.start(), timeout_seconds=TIMEOUT_SECONDS) as made:
        await made.append(record())
        yield made


async def kept(pool: asyncpg.Pool, made: Record) -> int:
    """Return how often a record is stored."""
    found: int = await pool.fetchval("select count(*) from access_record where id = $1", made.id)
    return found


async def refused(recorder: GroupRecorder, made: Record) -> None:
    """Append a record, which must be refused in time."""
    began = time.monotonic()
    with pytest.raises(RecordsUnavailableError):
        await recorder.append(made)
    assert time.monotonic() - began < TIMEOUT_SECONDS + SLACK_SECONDS


async def test_failed_and_not_applied(
    recorder: GroupRecorder, wire: Wire, pool: asyncpg.Pool
) -> None:
    """A record that never reached the database is refused; later it can be appended."""
    made = record()
    wire.to_database.clear()
    await refused(recorder, made)
    wire.leave_stalled()
    assert await kept(pool, made) == 0
    await recorder.append(made)
    assert await kept(pool, made) == 1


async def test_failed_but_applied(recorder: GroupRecorder, wire: Wire, pool: asyncpg.Pool) -> None:
    """A record that is stored but not confirmed is refused; appending it again is harmless."""
    made = record()
    wire.to_vault.clear()
    await refused(recorder, made)
    assert await kept(pool, made) == 1
    wire.leave_stalled()
    await recorder.append(made)
    assert await kept(pool, made) == 1
    assert await pool.fetchval("select count(*) from log_queue where record = $1", made.id) == 1


async def test_who_gives_up_in_the_middle_of_a_commit_does_not_hurt_the_others(
    recorder: GroupRecorder, wire: Wire, pool: asyncpg.Pool
) -> None:
    """While the batch is at the database one caller is cancelled; the other still hears yes."""
    gone, stays = record(), record()
    wire.to_vault.clear()
    tasks = [asyncio.create_task(recorder.append(made)) for made in (gone, stays)]
    while not await kept(pool, stays):
        await asyncio.sleep(0.01)
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    wire.mend()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, type(None)]


async def test_who_gives_up_before_its_turn_is_not_recorded(
    recorder: GroupRecorder, wire: Wire, pool: asyncpg.Pool
) -> None:
    """A caller cancelled behind a slow commit has begun nothing, and no record says it did."""
    first, gone, last = record(), record(), record()
    wire.to_vault.clear()
    ahead = asyncio.create_task(recorder.append(first))
    while not await kept(pool, first):
        await asyncio.sleep(0.01)
    behind = asyncio.create_task(recorder.append(gone))
    await asyncio.sleep(0)
    behind.cancel()
    await asyncio.gather(behind, return_exceptions=True)
    wire.mend()
    await ahead
    await recorder.append(last)
    assert (await kept(pool, gone), await kept(pool, last)) == (0, 1)
