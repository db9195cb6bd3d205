"""
Shreds with their seals on a large tree, beside a bare update of as many pages.

A round shreds a batch of random documents in one transaction and seals: re-key, mirror, gate and
the custodian's destroy are all in it. The limit in the same run is one statement that writes as
many pages of the same size as the seal writes. Then how the cost grows with the tree, what uploads
and reads wait for while seals run every second, and what memory a seal of 10,000 needs.
"""

import argparse
import asyncio
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg

from keys.custodians import open_custodian
from keys.errors import StaleScopeError
from keys.keyring import Keyring
from keys.tree import WrappedKey
from tests.bench.grown_tree import REGION, grow
from vault.adapters.directory import DirectoryStore
from vault.adapters.embedded_postgres import EmbeddedPostgres
from vault.migrate import migrate

ROUNDS = 5
BATCHES = (1, 10, 100, 1000, 10_000)
LATENCY_SECONDS = 5.0


@dataclass
class Bench:
    """A grown tree, and the keys that still live in it."""

    dsn: str
    pool: asyncpg.Pool
    keyring: Keyring
    keys: list[UUID]
    nodes: int

    def take(self, count: int) -> list[UUID]:
        """Take random keys out of the living."""
        taken = []
        for _ in range(count):
            index = random.randrange(len(self.keys))
            self.keys[index], self.keys[-1] = self.keys[-1], self.keys[index]
            taken.append(self.keys.pop())
        return taken


@asynccontextmanager
async def grown(documents: int) -> AsyncIterator[Bench]:
    """Give a tree of so many documents on a durable database of its own."""
    place = Path(tempfile.mkdtemp(prefix="portvault-bench-"))
    place.chmod(0o711)
    server = EmbeddedPostgres(place / "home")
    try:
        dsn = await server.start()
        await migrate(dsn)
        custodian = open_custodian(f"file:{place}/keys")
        await custodian.check()
        bucket = DirectoryStore(place / "objects")
        async with asyncpg.create_pool(dsn, min_size=2, max_size=10, reset=_keep) as pool:
            keyring = Keyring(pool, {REGION: custodian}, {REGION: bucket}, cache_seconds=5.0)
            await keyring.start_region(REGION)
            grower = await grow(dsn, custodian, documents)
            async with pool.acquire() as conn:
                await conn.execute("update key_mirror set seen = null")
            started = time.perf_counter()
            await keyring.mirror(REGION)
            seconds = time.perf_counter() - started
            print(f"  a base of {documents} documents is mirrored and opened in {seconds:.1f} s")
            yield Bench(dsn, pool, keyring, grower.keys, grower.nodes)
        await bucket.close()
    finally:
        await server.stop()
        shutil.rmtree(place, ignore_errors=True)


async def _keep(conn: object) -> None:
    del conn


async def shred_and_seal(bench: Bench, count: int) -> tuple[float, float, int]:
    """Return the seconds of the shred and of the seal, and how many pages it wrote."""
    keys = bench.take(count)
    started = time.perf_counter()
    async with bench.pool.acquire() as conn, conn.transaction():
        await bench.keyring.destroy_keys(conn, REGION, keys)
    shredded = time.perf_counter()
    result = await bench.keyring.seal(REGION)
    assert result is not None
    return shredded - started, time.perf_counter() - shredded, result.nodes


async def write_pages(bench: Bench, count: int) -> float:
    """Return the seconds of a bare update of so many pages, committed."""
    async with bench.pool.acquire() as conn:
        ids = [
            row["id"]
            for row in await conn.fetch("select id from key_node order by random() limit $1", count)
        ]
        pages = [os.urandom(1949) for _ in ids]
        await conn.execute("create temporary table if not exists bare (id bigint, page bytea)")
        await conn.execute(
            "create table if not exists bare_page (id bigint primary key, page bytea)"
        )
        await conn.execute(
            "insert into bare_page select * from unnest($1::bigint[], $2::bytea[]) "
            "on conflict do nothing",
            ids,
            pages,
        )
        started = time.perf_counter()
        await conn.execute(
            "update bare_page p set page = c.page "
            "from unnest($1::bigint[], $2::bytea[]) c (id, page) where p.id = c.id",
            ids,
            pages,
        )
        return time.perf_counter() - started


def spread(values: list[float], digits: int = 0) -> str:
    """Return median and range."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


async def batches(bench: Bench, sizes: tuple[int, ...]) -> dict[int, tuple[float, int]]:
    """Print and return seconds and pages of a batch, by its size."""
    found = {}
    for count in sizes:
        if count * (ROUNDS + 1) > len(bench.keys):
            continue
        await shred_and_seal(bench, count)
        done = [await shred_and_seal(bench, count) for _ in range(ROUNDS)]
        pages = int(statistics.median(item[2] for item in done))
        bare = [await write_pages(bench, pages) for _ in range(ROUNDS)]
        rates = [count / (shred + seal) for shred, seal, _ in done]
        print(
            f"  {count:6}  {spread(rates):>24}/s   shred {_ms(done, 0)}  seal {_ms(done, 1)}   "
            f"{pages:5} pages, bare update {statistics.median(bare) * 1000:.1f} ms"
        )
        seconds = statistics.median(shred + seal for shred, seal, _ in done)
        found[count] = (seconds, pages)
    return found


def _ms(done: list[tuple[float, float, int]], part: int) -> str:
    return f"{statistics.median(item[part] for item in done) * 1000:7.1f} ms"


async def latencies(bench: Bench, *, seals: bool) -> None:
    """Print what an upload and a read wait for."""
    stop = asyncio.Event()
    sealing = asyncio.create_task(_seal_every_second(bench, stop)) if seals else None
    uploads, reads = list[float](), list[float]()
    async with bench.pool.acquire() as conn:
        rows = await conn.fetch(
            "select id, region, scope, scope_epoch, wrap from data_key order by random() limit 500"
        )
    until = time.perf_counter() + LATENCY_SECONDS
    while time.perf_counter() < until:
        row = random.choice(rows)
        reads.append(await _read(bench, row["id"]))
        uploads.append(await _upload(bench, row["scope"]))
    stop.set()
    if sealing is not None:
        await sealing
    for name, taken in (("upload", uploads), ("read", reads)):
        cuts = statistics.quantiles(taken, n=100)
        what = "seals every second" if seals else "no seals"
        print(
            f"  {name:6} {what:18} p50 {cuts[49] * 1000:6.2f} ms  p99 {cuts[98] * 1000:6.2f} ms  "
            f"max {max(taken) * 1000:6.1f} ms  ({len(taken)} times)"
        )


async def _seal_every_second(bench: Bench, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await shred_and_seal(bench, 100)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


async def _upload(bench: Bench, scope: UUID) -> float:
    started = time.perf_counter()
    identity = uuid4()
    with suppress(Exception):
        key, wrapped = await bench.keyring.new_key(REGION, scope, identity)
        for _ in range(3):
            try:
                async with bench.pool.acquire() as conn:
                    await bench.keyring.insert_key(conn, wrapped)
                break
            except StaleScopeError:
                wrapped = await bench.keyring.rewrap(key, wrapped)
    return time.perf_counter() - started


async def _read(bench: Bench, identity: UUID) -> float:
    bench.keyring._scopes.clear()
    started = time.perf_counter()
    for _ in range(5):
        async with bench.pool.acquire() as conn:
            row = await conn.fetchrow(
                "select id, region, scope, scope_epoch, wrap from data_key where id = $1", identity
            )
        if row is None:
            break
        with suppress(StaleScopeError):
            await bench.keyring.open_key(WrappedKey(**dict(row)))
            break
    return time.perf_counter() - started


def peak_mib() -> float:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def run(documents: int) -> None:
    """Print all figures."""
    cost = {}
    for size in (10_000, 100_000):
        if size >= documents:
            continue
        print(f"\n{size} documents")
        async with grown(size) as bench:
            cost[size] = (await batches(bench, (100,)))[100]
    print(f"\n{documents} documents: shreds with their seal, a second")
    async with grown(documents) as bench:
        before = peak_mib()
        found = await batches(bench, BATCHES)
        cost[documents] = found[100]
        print(f"  memory: {before:.0f} MiB before, {peak_mib():.0f} MiB at most with all batches")
        print("\nwhat uploads and reads wait for")
        for seals in (False, True):
            await latencies(bench, seals=seals)
    print("\nbatches of 100, as the tree grows")
    for size, (seconds, pages) in cost.items():
        print(f"  {size:9} documents  {seconds * 1000:6.1f} ms  {pages} pages")
    seconds, pages = cost[documents]
    print(
        f"  {10**8:9} documents  {seconds * 298 / pages * 1000:6.1f} ms  298 pages, extrapolated "
        "from the pages touched"
    )


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--documents", type=int, default=1_000_000)
    args = parser.parse_args()
    print(f"medians of {ROUNDS} rounds [range]; python {sys.version.split()[0]}", flush=True)
    asyncio.run(run(args.documents))


if __name__ == "__main__":
    main()
