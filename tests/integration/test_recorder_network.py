"""The recorder over a network that stalls: what was sent may be stored though nobody said so."""

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from tests.access_records import record
from vault.adapters.recorder import GroupRecorder
from vault.domain.records import Record
from vault.errors import RecordsUnavailableError

TIMEOUT_SECONDS = 1.0
SLACK_SECONDS = 1.5


class Wire:
    """A wire to the database that can be stalled, in either direction."""

    def __init__(self, database: str) -> None:
        parts = urlsplit(database)
        self._socket = parse_qs(parts.query)["host"][0] + "/.s.PGSQL.5432"
        self._account, self._name = parts.username, parts.path
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.to_database, self.to_vault = asyncio.Event(), asyncio.Event()
        self.mend()

    async def start(self) -> str:
        """Listen, and return the address by which the database is reached over this wire."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._account}@127.0.0.1:{port}{self._name}"

    def mend(self) -> None:
        """Let everything through again, what was held back first."""
        self.to_database.set()
        self.to_vault.set()

    def leave_stalled(self) -> None:
        """Stall the connections there are for ever; new ones go through."""
        self.to_database, self.to_vault = asyncio.Event(), asyncio.Event()
        self.mend()

    async def stop(self) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, there = await asyncio.open_unix_connection(self._socket)
        for pump in (
            self._pump(near, there, self.to_database),
            self._pump(far, back, self.to_vault),
        ):
            self._pumps.add(asyncio.create_task(pump))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65536):
                await flows.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def wire(database: str) -> AsyncIterator[Wire]:
    """Give a wire to the test's database."""
    made = Wire(database)
    yield made
    await made.stop()


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
