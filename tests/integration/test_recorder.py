"""The recorder on a real database that is locked, broken, slow or gone."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from tests.access_records import record
from vault.adapters import committer as recorder_module
from vault.adapters.committer import GroupRecorder
from vault.domain.records import Record
from vault.errors import RecordsUnavailableError

TIMEOUT_SECONDS = 1.0
#: What scheduling may add to a time limit on a busy machine.
SLACK_SECONDS = 1.5


@pytest.fixture
async def recorder(database: str) -> AsyncIterator[GroupRecorder]:
    """Give a recorder with a short time limit."""
    async with GroupRecorder(database, timeout_seconds=TIMEOUT_SECONDS) as made:
        yield made


async def count(pool: asyncpg.Pool) -> int:
    """Return how many records there are."""
    found: int = await pool.fetchval("select count(*) from access_record")
    return found


async def backends(pool: asyncpg.Pool) -> list[int]:
    """Return the process numbers of the recorder's connections."""
    rows = await pool.fetch(
        """
        select pid from pg_stat_activity
        where application_name = 'portvault-recorder' and datname = current_database()
        """
    )
    return [row["pid"] for row in rows]


async def refused(recorder: GroupRecorder, made: Record | None = None) -> float:
    """Append a record, which must be refused, and return how many seconds that took."""
    began = time.monotonic()
    with pytest.raises(RecordsUnavailableError):
        await recorder.append(made or record())
    return time.monotonic() - began


async def test_waiters_share_commits(recorder: GroupRecorder, pool: asyncpg.Pool) -> None:
    """64 callers at once are all durable after a few commits, each record with a queue entry."""
    await asyncio.gather(*(recorder.append(record()) for _ in range(64)))
    commits = await pool.fetchval("select count(distinct xmin::text) from access_record")
    assert await count(pool) == 64
    assert commits <= 4
    assert await pool.fetchval("select count(*) from log_queue") == 64


async def test_a_batch_is_bounded(
    recorder: GroupRecorder, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch takes a further caller once it is full; a caller's own records stay together."""
    monkeypatch.setattr(recorder_module, "BATCH_RECORDS_MAX", 10)
    await asyncio.gather(*(recorder.append_many([record(), record()]) for _ in range(20)))
    rows = await pool.fetch("select count(*) as size from access_record group by xmin::text")
    assert sum(row["size"] for row in rows) == 40
    assert max(row["size"] for row in rows) <= 10
    await recorder.append_many([record() for _ in range(25)])
    assert await count(pool) == 65
    await recorder.append_many([])


async def test_every_field_arrives(recorder: GroupRecorder, pool: asyncpg.Pool) -> None:
    """What is stored is what was appended, field by field."""
    made = record(
        intent=uuid.uuid4(),
        document=uuid.uuid4(),
        order=uuid.uuid4(),
        kind="passport",
        purpose="verify-identity",
        reference="T-1",
        region_to="sg",
        basis="scc",
        result="completed",
        size_bytes=2**40,
    )
    await recorder.append(made)
    row = await pool.fetchrow("select * from access_record")
    assert row is not None
    assert Record(**dict(row)) == made


async def test_too_many_waiters_are_refused_at_once(
    database: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit a caller waits; past it the caller is refused and need not wait."""
    monkeypatch.setattr(recorder_module, "WAITERS_MAX", 5)
    async with GroupRecorder(database, timeout_seconds=TIMEOUT_SECONDS) as recorder:
        made = [asyncio.create_task(recorder.append(record())) for _ in range(6)]
        results = await asyncio.gather(*made, return_exceptions=True)
    assert [type(item) for item in results] == [type(None)] * 5 + [RecordsUnavailableError]
    assert await count(pool) == 5


async def test_a_locked_table_refuses_in_time_and_recovers(
    recorder: GroupRecorder, pool: asyncpg.Pool
) -> None:
    """While another holds the table, each of many is refused in time; then all is well at once."""
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("lock table access_record in access exclusive mode")
        for _ in range(2):
            took = await asyncio.gather(*(refused(recorder) for _ in range(20)))
            assert max(took) < TIMEOUT_SECONDS + SLACK_SECONDS
    made = record()
    await recorder.append(made)
    assert await pool.fetchval("select true from access_record where id = $1", made.id)


async def test_a_missing_table_refuses_and_recovers(
    recorder: GroupRecorder, pool: asyncpg.Pool
) -> None:
    """A table that is away refuses each of many at once, and serves again when it is back."""
    await recorder.append(record())
    await pool.execute("alter table access_record rename to away")
    took = await asyncio.gather(*(refused(recorder) for _ in range(50)))
    assert max(took) < TIMEOUT_SECONDS
    await pool.execute("alter table away rename to access_record")
    await recorder.append(record())
    assert await count(pool) == 2


async def test_lost_connections_are_replaced(recorder: GroupRecorder, pool: asyncpg.Pool) -> None:
    """Connections that the server ends, idle or at work, cost a refusal at most."""
    acknowledged = set()

    async def append() -> None:
        made = record()
        try:
            await recorder.append(made)
        except RecordsUnavailableError:
            return
        acknowledged.add(made.id)

    for _ in range(10):
        work = [asyncio.create_task(append()) for _ in range(50)]
        await asyncio.sleep(0.005)
        for pid in await backends(pool):
            await pool.execute("select pg_terminate_backend($1)", pid)
        await asyncio.gather(*work)
        made = [asyncio.create_task(append()) for _ in range(5)]
        await asyncio.gather(*made)
    await asyncio.sleep(0.05)
    await recorder.append(record())
    rows = await pool.fetch("select id from access_record")
    assert acknowledged
    assert acknowledged <= {row["id"] for row in rows}


async def test_a_database_that_is_gone_refuses_in_time(postgres_server, pool: asyncpg.Pool) -> None:
    """No server, no database, or a server that never answers: refused within the limit."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for dsn in (
        postgres_server("no_such_database"),
        "postgresql://nobody@127.0.0.1:1/x",
        f"postgresql://nobody@127.0.0.1:{port}/x",
    ):
        async with GroupRecorder(dsn, timeout_seconds=TIMEOUT_SECONDS) as recorder:
            took = await asyncio.gather(*(refused(recorder) for _ in range(10)))
            assert max(took) < TIMEOUT_SECONDS + SLACK_SECONDS
    server.close()
    await server.wait_closed()


async def test_a_record_twice_is_harmless(recorder: GroupRecorder, pool: asyncpg.Pool) -> None:
    """A caller that never heard may append again: the first stands and is queued once."""
    made = record()
    await recorder.append(made)
    await recorder.append(replace(made, reason="other"))
    rows = await pool.fetch("select reason from access_record")
    assert [row["reason"] for row in rows] == ["role-may-not"]
    assert await pool.fetchval("select count(*) from log_queue") == 1
    again = record()
    await recorder.append_many([again, again])
    assert await count(pool) == 2


@pytest.mark.parametrize(
    "poison",
    [
        {"phase": "later"},
        {"reference": "a\x00b"},
        {"reference": "half \ud800"},
        {"size_bytes": 2**70},
        {"region": None},
        {"document": "no id"},
    ],
    ids=str,
)
async def test_one_bad_record_does_not_hurt_the_others(
    recorder: GroupRecorder, pool: asyncpg.Pool, poison: dict[str, Any]
) -> None:
    """A record that cannot be written is refused; who shared its batch is served."""
    made = [record() for _ in range(5)]
    made.insert(2, record(**poison))
    tasks = [asyncio.create_task(recorder.append(item)) for item in made]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    expected: list[type] = [type(None)] * 6
    expected[2] = RecordsUnavailableError
    assert [type(item) for item in results] == expected
    assert await count(pool) == 5
    await recorder.append(record())


async def test_a_refused_group_of_one_caller_is_refused_whole(
    recorder: GroupRecorder, pool: asyncpg.Pool
) -> None:
    """Several records of one caller are durable together or not at all."""
    with pytest.raises(RecordsUnavailableError):
        await recorder.append_many([record(), record(phase="later"), record()])
    assert await count(pool) == 0


async def test_who_gives_up_does_not_hurt_the_others(
    recorder: GroupRecorder, pool: asyncpg.Pool
) -> None:
    """Cancelled before or while the batch is written, a caller takes nobody along."""
    for delay in (0, 0.001, 0.003):
        made = [record() for _ in range(20)]
        tasks = [asyncio.create_task(recorder.append(item)) for item in made]
        await asyncio.sleep(delay)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [None] * 10
        kept = await pool.fetch("select id from access_record")
        assert {item.id for item in made[1::2]} <= {row["id"] for row in kept}


async def test_closing_keeps_what_waits(database: str, pool: asyncpg.Pool) -> None:
    """What was handed over before the end is durable; afterwards nothing is taken."""
    recorder = GroupRecorder(database, timeout_seconds=TIMEOUT_SECONDS)
    with pytest.raises(RecordsUnavailableError):
        await recorder.append(record())
    async with recorder:
        tasks = [asyncio.create_task(recorder.append(record())) for _ in range(600)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert await count(pool) == 600
    assert await refused(recorder) < TIMEOUT_SECONDS
    # The server lets go of a connection some time after it was closed.
    async with asyncio.timeout(10):
        while await backends(pool):
            await asyncio.sleep(0.01)


async def test_closing_does_not_wait_for_ever(database: str, pool: asyncpg.Pool) -> None:
    """With the table locked, the end comes in time and everybody hears."""
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("lock table access_record in access exclusive mode")
        async with GroupRecorder(database, timeout_seconds=TIMEOUT_SECONDS) as recorder:
            tasks = [asyncio.create_task(refused(recorder)) for _ in range(10)]
            await asyncio.sleep(0)
            began = time.monotonic()
        assert time.monotonic() - began < TIMEOUT_SECONDS + SLACK_SECONDS
        await asyncio.gather(*tasks)
