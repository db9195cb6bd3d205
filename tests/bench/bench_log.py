"""
The access log, beside what bounds it, in one run on a durable PostgreSQL of its own.

Appends: records that are durable a second with so many waiters, beside bare commits of one row by
one connection, and bare commits of as many rows as there are waiters by one statement (unnest). The
time of one append is what an intent adds to a read. Then, with 32 waiters at work: how long a
record waits for its place under a signed checkpoint. Then on a log of BENCH_LOG_RECORDS records
(200,000; set 1000000 for the figures of the issue): ordering a backlog, publishing it, exporting
it, auditing the export, verifying the database, and looking records up.
"""

import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from tests.access_records import record
from vault.actions.export import export_log
from vault.actions.publish import publish_log
from vault.actions.records import list_records, verify_region
from vault.actions.sequence import sequence_log
from vault.adapters.embedded_postgres import EmbeddedPostgres
from vault.adapters.recorder import GroupRecorder
from vault.app import open_vault
from vault.auditor import Audit
from vault.config import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.records import Record
from vault.domain.search import Wanted
from vault.migrate import migrate

WAITERS = (1, 8, 32, 256)
ROUND_SECONDS, ROUNDS = 2.0, 3
LAG_SECONDS = 10.0
RECORDS = int(os.environ.get("BENCH_LOG_RECORDS", "200000"))
COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = tuple(Record.__dataclass_fields__)
TYPES = {"id": "uuid", "intent": "uuid", "document": "uuid", "order": "uuid", "at": "timestamptz"}
ARRAYS = ", ".join(
    f"${n}::{TYPES.get(name, 'bigint' if name == 'size_bytes' else 'text')}[]"
    for n, name in enumerate(NAMES, 1)
)


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


async def rate(step: Callable[[], Awaitable[int]], workers: int) -> float:
    """Return how many a second so many workers do in one round."""
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
    conn = await asyncpg.connect(dsn)
    await conn.execute(
        "create table bare (like access_record including defaults including constraints)"
    )
    await conn.execute("alter table bare add primary key (id)")

    def bare(rows: int) -> Callable[[], Awaitable[int]]:
        async def insert() -> int:
            made = [intent() for _ in range(rows)]
            columns = [[getattr(item, name) for item in made] for name in NAMES]
            await conn.execute(f"insert into bare select * from unnest({ARRAYS})", *columns)
            return rows

        return insert

    alone = statistics.median([await rate(bare(1), 1) for _ in range(ROUNDS)])
    print(f"bare commits of one row: {alone:,.0f}/s")
    print(f"{'waiters':>8} {'appends/s':>12} {'bare unnest/s':>14} {'ratio':>6}")
    async with GroupRecorder(dsn, timeout_seconds=5.0) as recorder:

        async def append() -> int:
            await recorder.append(intent())
            return 1

        for waiters in WAITERS:
            ours, theirs = [], []
            for _ in range(ROUNDS):
                theirs.append(await rate(bare(waiters), 1))
                ours.append(await rate(append, waiters))
            mine, other = statistics.median(ours), statistics.median(theirs)
            print(f"{waiters:>8} {mine:>12,.0f} {other:>14,.0f} {mine / other:>6.2f}")
        took = []
        for _ in range(1000):
            began = time.perf_counter()
            await recorder.append(intent())
            took.append((time.perf_counter() - began) * 1000)
    took.sort()
    print(f"an intent alone: p50 {took[500]:.2f} ms, p99 {took[990]:.2f} ms")
    await conn.execute("drop table bare")
    await conn.close()


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
        f" p99 {waits[len(waits) * 99 // 100]:.2f} s; {len(made):,} wait at the end"
    )


async def timed(what: str, count: int, step: Awaitable[object]) -> None:
    """Print how many records a second a step takes."""
    began = time.perf_counter()
    await step
    took = time.perf_counter() - began
    print(f"{what:>30} {count / took:>12,.0f} records/s ({took:.1f} s)")


async def long_log(vault: Vault, owner: asyncpg.Connection, file: Path) -> None:
    """Print what is done with a long log."""
    have = await owner.fetchval("select count(*) from access_record where region = 'uk'")
    wanted = max(0, RECORDS - have)
    await owner.execute(
        """
        insert into access_record (id, region, at, phase, principal, role, action, document,
            "order", kind, purpose, decision, reason)
        select gen_random_uuid(), 'uk', $1::timestamptz + make_interval(secs => n * 30), 'intent',
            'token:' || n % 500, 'porting', 'document.read', md5((n / 8)::text)::uuid,
            md5((n / 40)::text || 'o')::uuid, 'passport', 'verify-identity',
            'deny', 'no-such-thing'
        from generate_series(1, $2::bigint) n
        """,
        START,
        wanted,
        timeout=3600,
    )
    waiting = await owner.fetchval("select count(*) from log_queue")

    async def order() -> None:
        while await sequence_log(vault, "uk"):
            pass

    await timed("ordering and signing", waiting, order())
    published = await publish_size(vault)
    size = await owner.fetchval("select count(*) from log_leaf where region = 'uk'")
    await timed("publishing", size - published, publish_log(vault, "uk"))

    async def export() -> None:
        with file.open("wb") as out:
            async with export_log(
                vault, COMPLIANCE, "uk", since=None, until=None, as_csv=False
            ) as pieces:
                async for piece in pieces:
                    out.write(piece)

    await timed("exporting", size, export())

    async def audit() -> None:
        made = Audit(vault.signer.vkey)
        with file.open("rb") as lines:
            for line in lines:
                made.take(line)
        assert made.verdict()["intact"]

    await timed("auditing the export", size, audit())
    await timed("verifying the database", size, verify_region(vault, COMPLIANCE, "uk"))
    await owner.execute("analyze", timeout=3600)
    await searches(vault, size)


async def publish_size(vault: Vault) -> int:
    """Return how many records are published."""
    found: int | None = await vault.pool.fetchval("select size from log_published")
    return found or 0


async def searches(vault: Vault, size: int) -> None:
    """Print how long the questions of compliance take."""
    some = await vault.pool.fetchrow(
        'select document, "order", principal, at from log_leaf where index = $1', size // 2
    )
    assert some is not None
    questions = {
        "of a document": Wanted(document=some["document"]),
        "of an order": Wanted(order=some["order"]),
        "of a person": Wanted(principal=some["principal"]),
        "for a purpose": Wanted(purpose="verify-identity"),
        "refused": Wanted(refused=True),
        "transfers": Wanted(transfers=True),
        "of a person, in a week": Wanted(
            principal=some["principal"], since=some["at"], until=some["at"] + timedelta(days=7)
        ),
    }
    for name, wanted in questions.items():
        took = []
        for _ in range(20):
            began = time.perf_counter()
            await list_records(vault, COMPLIANCE, region="uk", wanted=wanted, cursor=None, limit=50)
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        print(f"{'50 records ' + name:>34}: p50 {took[10]:.1f} ms, worst {took[-1]:.1f} ms")


async def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory(prefix="bench-log-") as place:
        async with AsyncExitStack() as stack:
            postgres = EmbeddedPostgres(Path(place) / "home")
            dsn = await postgres.start()
            stack.push_async_callback(postgres.stop)
            await migrate(dsn)
            await appends(dsn)
            config = Config(home=Path(place) / "home", database=dsn, regions=("uk",))
            config = replace(config, worker=False, database_timeout_seconds=3600.0)
            vault = await stack.enter_async_context(open_vault(config, dsn=dsn))
            owner = await asyncpg.connect(dsn)
            stack.push_async_callback(owner.close)
            await lag(vault)
            await long_log(vault, owner, Path(place) / "export.jsonl")


if __name__ == "__main__":
    asyncio.run(main())
