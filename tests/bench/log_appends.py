"""Records as they come in: how many a second, what they add to a read, how long they wait."""

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import asyncpg

from tests.access_records import record
from tests.fixtures_server import PORTING, in_pieces
from tests.retention_house import new_order
from vault.actions.ingest import Upload, ingest
from vault.actions.log_publish import sequence_log
from vault.actions.read import open_content
from vault.adapters.committer import GroupRecorder
from vault.context import Vault
from vault.domain.documents import Kind
from vault.domain.records import Record

WAITERS = (1, 8, 32, 256)
ROUND_SECONDS, ROUNDS = 2.0, 5
#: More intents than a round can append.
READY = 200_000
READS, READ_BYTES = 500, 60 * 1024
LAG_SECONDS = 10.0
NAMES = tuple(Record.__dataclass_fields__)
TYPES = {"id": "uuid", "intent": "uuid", "document": "uuid", "order": "uuid", "at": "timestamptz"}
ARRAYS = ", ".join(
    f"${n}::{TYPES.get(name, 'bigint' if name == 'size_bytes' else 'text')}[]"
    for n, name in enumerate(NAMES, 1)
)
Step = Callable[[], Awaitable[int]]


def intent() -> Record:
    """Return an intent as a read makes it."""
    return record(
        document=uuid.uuid4(),
        order=uuid.uuid4(),
        kind="passport",
        purpose="verify-identity",
        decision="allow",
        reason="allowed",
    )


class Rounds:
    """Rounds of appending intents that were made beforehand, each of them once."""

    def __init__(self) -> None:
        self.ready: list[Record] = []

    def take(self, count: int) -> list[Record]:
        """Return so many intents."""
        if len(self.ready) < count:
            raise RuntimeError(f"a round takes more than {READY:,} intents; raise READY")
        taken, self.ready[-count:] = self.ready[-count:], []
        return taken

    async def rate(self, step: Step, workers: int) -> float:
        """Return how many a second so many workers append in one round."""
        self.ready += [intent() for _ in range(READY - len(self.ready))]
        done, end = 0, time.perf_counter() + ROUND_SECONDS

        async def work() -> None:
            nonlocal done
            while time.perf_counter() < end:
                # In two steps: others count while this one waits.
                made = await step()
                done += made

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(workers)))
        return done / (time.perf_counter() - began)


async def appends(dsn: str) -> None:
    """Print appends a second beside bare commits."""
    rounds = Rounds()
    conn = await asyncpg.connect(dsn)
    await conn.execute(
        "create table bare (like access_record including defaults including constraints)"
    )
    await conn.execute("alter table bare add primary key (id)")

    def bare(rows: int) -> Step:
        async def insert() -> int:
            made = rounds.take(rows)
            columns = [[getattr(item, name) for item in made] for name in NAMES]
            await conn.execute(f"insert into bare select * from unnest({ARRAYS})", *columns)
            return rows

        return insert

    alone = statistics.median([await rounds.rate(bare(1), 1) for _ in range(ROUNDS)])
    print(f"bare commits of one row: {alone:,.0f}/s")
    print(f"{'waiters':>8} {'appends/s':>27} {'bare unnest/s':>14} {'ratio':>6}")
    async with GroupRecorder(dsn, timeout_seconds=5.0) as recorder:

        async def append() -> int:
            await recorder.append(*rounds.take(1))
            return 1

        for waiters in WAITERS:
            ours, theirs = list[float](), list[float]()
            for _ in range(ROUNDS):
                theirs.append(await rounds.rate(bare(waiters), 1))
                ours.append(await rounds.rate(append, waiters))
            mine, other = statistics.median(ours), statistics.median(theirs)
            spread = f"[{min(ours):,.0f} to {max(ours):,.0f}]"
            print(
                f"{waiters:>8} {mine:>8,.0f} {spread:>18} {other:>14,.0f} {mine / other:>6.2f}",
                flush=True,
            )
    await conn.execute("drop table bare")
    await conn.close()


class Forgetful:
    """A recorder that writes nothing down: what a read would take if nobody asked who and why."""

    async def append(self, record: Record) -> None:
        """Forget it."""

    async def append_many(self, records: Sequence[Record]) -> None:
        """Forget them."""


async def reads(vault: Vault) -> None:
    """Print what records add to a read, one at a time: an intent before it, an outcome after."""
    data = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + os.urandom(READ_BYTES - 12)
    upload = Upload(in_pieces(data), None, None, len(data), None)
    document = await ingest(vault, PORTING, await new_order(vault), Kind.PASSPORT, upload)
    kinds = {"recorded": vault, "not recorded": replace(vault, recorder=Forgetful())}
    took = {name: list[float]() for name in kinds}
    for _ in range(READS):
        for name, mine in kinds.items():
            began = time.perf_counter()
            async with open_content(
                mine, PORTING, document.id, purpose="verify-identity", reference=None
            ) as content:
                pieces = [piece async for piece in content.chunks]
            took[name].append((time.perf_counter() - began) * 1000)
            assert b"".join(pieces) == data
    for name, times in took.items():
        cut = statistics.quantiles(times, n=100)
        print(f"a read of 60 KiB, {name:>12}: p50 {cut[49]:.2f} ms, p99 {cut[98]:.2f} ms")
    alone = list[float]()
    for _ in range(READS):
        began = time.perf_counter()
        await vault.recorder.append(intent())
        alone.append((time.perf_counter() - began) * 1000)
    cut = statistics.quantiles(alone, n=100)
    print(f"an intent alone: p50 {cut[49]:.2f} ms, p99 {cut[98]:.2f} ms", flush=True)


async def lag(vault: Vault) -> None:
    """Print how long records wait for a signed place while many come in."""
    waits, made = list[float](), dict[uuid.UUID, float]()
    while await sequence_log(vault, "uk"):
        pass
    end = time.perf_counter() + LAG_SECONDS

    async def work() -> int:
        count = 0
        while time.perf_counter() < end:
            one = intent()
            await vault.recorder.append(one)
            made[one.id] = time.perf_counter()
            count += 1
        return count

    async def order() -> None:
        seen = await vault.pool.fetchval("select max(index) from log_leaf where region = 'uk'")
        while time.perf_counter() < end:
            if not await sequence_log(vault, "uk"):
                await asyncio.sleep(1.0)
            rows = await vault.pool.fetch(
                "select record, index from log_leaf where region = 'uk' and index > $1", seen or 0
            )
            now = time.perf_counter()
            waits.extend(now - made.pop(row["record"]) for row in rows if row["record"] in made)
            seen = max([seen or 0, *(row["index"] for row in rows)])

    ordering = asyncio.create_task(order())
    counts = await asyncio.gather(*(work() for _ in range(32)))
    await ordering
    waits.sort()
    print(
        f"with 32 waiters and the sequencer in one process: {sum(counts) / LAG_SECONDS:,.0f}"
        f" appends/s; under a signed checkpoint after p50 {waits[len(waits) // 2]:.2f} s,"
        f" p99 {waits[len(waits) * 99 // 100]:.2f} s; {len(made):,} wait at the end",
        flush=True,
    )
