"""
Shreds with their seals on a large tree, beside what bounds them.

A round shreds a batch of random documents in one transaction and seals: re-key, mirror, gate and
the custodian's destroy are all in it. `shred and switch` are the shred's transaction and the seal's
re-keying one without the rest. The limit, a round of it after each of ours, is `bare_tree`: pages
alone, re-keyed in one transaction. Then what a seal waits for on the disk, how the cost grows with
the tree, what uploads and reads wait for while seals run every second, what memory a seal of 10,000
needs, and what two regions do at the same time, one waiting less for the other than for the disk.
The server's buffers hold the tree, as an operator's would. `per core` is by the CPU time of this
process, which stands for the vault's; PostgreSQL's is not in it.
"""

import argparse
import asyncio
import gc
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import uvloop

from keys.custodian import Custodian
from keys.custodians import open_custodian
from keys.data_keys import wrapped_key
from keys.errors import KeyDestroyedError, StaleScopeError
from keys.keyring import Keyring
from keys.seal import Seal
from keys.wrap import KEY_BYTES, PAGE_BYTES, decrypt_page, encrypt_page
from tests.bench.bare_tree import BareTree, grow_bare
from tests.bench.bench_ingest import forget_peak, peak_mib
from tests.bench.grown_tree import grow
from vault.adapters.directory import DirectoryStore
from vault.adapters.postgres.embedded import SETTINGS, EmbeddedPostgres
from vault.migrate import migrate
from vault.sql.documents import LivingRows

REGION, OTHER = "uk", "us"
ROUNDS = 9
#: Batches that each of two regions does in a round of theirs.
TOGETHER = 10
#: PostgreSQL plans each statement anew for the first five times.
WARM_UP_ROUNDS = 6
BATCHES = (1, 10, 100, 1000, 10_000)
LATENCY_SECONDS = 5.0
SHARED_BUFFERS = "1GB"


@dataclass
class Bench:
    """Grown trees, and the keys that still live in them, by region."""

    dsn: str
    pool: asyncpg.Pool
    custodian: Custodian
    keyring: Keyring
    keys: dict[str, list[UUID]]
    bare: BareTree

    def take(self, count: int, region: str = REGION) -> list[UUID]:
        """Take random keys out of the living."""
        keys, taken = self.keys[region], []
        for _ in range(count):
            index = random.randrange(len(keys))
            keys[index], keys[-1] = keys[-1], keys[index]
            taken.append(keys.pop())
        return taken

    async def grow(self, region: str, documents: int) -> None:
        """Grow the region's tree, and mirror it."""
        await self.keyring.start_region(region)
        grower = await grow(self.dsn, self.custodian, region, documents)
        self.keys[region] = grower.keys
        async with self.pool.acquire() as conn:
            await conn.execute("update key_mirror set seen = null where region = $1", region)
        started = time.perf_counter()
        await self.keyring.mirror(region)
        seconds = time.perf_counter() - started
        print(f"  a base of {documents} documents is mirrored and opened in {seconds:.1f} s")
        # A vault has no list of all its keys, which the collector would look through.
        gc.collect()
        gc.freeze()


@dataclass(frozen=True, slots=True)
class Round:
    """The seconds of a shred with its seal, of the parts, and of the limit; and the pages."""

    count: int
    cpu: float
    shred: float
    switch: float
    seal: float
    pages: int
    bare: float
    bare_pages: int


class SwitchClock:
    """Knows how long the last switch took."""

    seconds = 0.0

    def start(self) -> None:
        """Measure every switch from now on."""
        original = Seal._switch

        async def switch(*args: Any) -> Any:
            started = time.perf_counter()
            done = await original(*args)
            self.seconds = time.perf_counter() - started
            return done

        Seal._switch = switch  # type: ignore[assignment,method-assign] # timed


CLOCK = SwitchClock()


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
        buckets = {region: DirectoryStore(place / region) for region in (REGION, OTHER)}
        custodians = dict.fromkeys(buckets, custodian)
        async with asyncpg.create_pool(dsn, min_size=2, max_size=10, reset=_keep) as pool:
            keyring = Keyring(pool, custodians, buckets, LivingRows(), cache_seconds=5.0)
            bare = await grow_bare(dsn, documents)
            bench = Bench(dsn, pool, custodian, keyring, {}, bare)
            await bench.grow(REGION, documents)
            yield bench
            await bare.conn.close()
        for bucket in buckets.values():
            await bucket.close()
    finally:
        gc.unfreeze()
        await server.stop()
        shutil.rmtree(place, ignore_errors=True)


async def _keep(conn: object) -> None:
    del conn


async def shred_and_seal(
    bench: Bench, keys: list[UUID], region: str = REGION
) -> tuple[float, float, int]:
    """Return the seconds of the shred and of the seal, and how many pages it wrote."""
    started = time.perf_counter()
    async with bench.pool.acquire() as conn, conn.transaction():
        await bench.keyring.destroy_keys(conn, region, keys)
    shredded = time.perf_counter()
    result = await bench.keyring.seal(region)
    assert result is not None
    return shredded - started, time.perf_counter() - shredded, result.nodes


async def measured(bench: Bench, count: int) -> Round:
    """Do one round of ours, and one of the limit."""
    keys, before = bench.take(count), time.process_time()
    shred, seal, pages = await shred_and_seal(bench, keys)
    cpu, switch = time.process_time() - before, CLOCK.seconds
    bare, bare_pages = await bench.bare.shred(count)
    return Round(count, cpu, shred, switch, seal, pages, bare, bare_pages)


def spread(values: list[float], digits: int = 0) -> str:
    """Return median and range."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


async def batches(bench: Bench, sizes: tuple[int, ...]) -> dict[int, tuple[float, int]]:
    """Print and return seconds and pages of a batch, by its size."""
    found = {}
    print("  batch, a second:      shred + seal     shred and switch         bare pages   pages")
    for count in sizes:
        if count * (ROUNDS + WARM_UP_ROUNDS) > len(bench.keys[REGION]):
            continue
        forget_peak(os.getpid())
        before = resident_mib()
        for _ in range(WARM_UP_ROUNDS):
            await measured(bench, count)
        done = [await measured(bench, count) for _ in range(ROUNDS)]
        ours = [count / (item.shred + item.seal) for item in done]
        alone = [count / (item.shred + item.switch) for item in done]
        core = [count / item.cpu for item in done]
        bare = [count / item.bare for item in done]
        pages = int(statistics.median(item.pages for item in done))
        print(
            f"  {count:6}  {spread(ours):>22}  {spread(alone):>22}  {spread(bare):>22}   {pages:5}"
            f"\n          {spread(core)} per core ({_ms(done, 'cpu')} of CPU)"
            f"\n          shred {_ms(done, 'shred')}, switch {_ms(done, 'switch')}, the rest "
            f"{statistics.median(item.seal - item.switch for item in done) * 1000:.1f} ms; "
            f"{statistics.median(ours) / statistics.median(bare):.2f} of the bare pages, without "
            f"the rest {statistics.median(alone) / statistics.median(bare):.2f}; memory "
            f"{before:.0f} MiB before, {peak_mib(os.getpid()):.0f} MiB at most"
        )
        seconds = statistics.median(item.shred + item.seal for item in done)
        found[count] = (seconds, pages)
    return found


async def together(bench: Bench) -> None:
    """Print what two regions shred and seal at the same time, in batches of 100."""
    if min(map(len, bench.keys.values())) < (ROUNDS + 1) * TOGETHER * 100:
        return

    async def batches_of(region: str) -> None:
        for _ in range(TOGETHER):
            await shred_and_seal(bench, bench.take(100, region), region)

    rates, cores = list[float](), list[float]()
    for warm in [False] + ROUNDS * [True]:
        started, before = time.perf_counter(), time.process_time()
        await asyncio.gather(batches_of(REGION), batches_of(OTHER))
        if warm:
            rates.append(2 * TOGETHER * 100 / (time.perf_counter() - started))
            cores.append(2 * TOGETHER * 100 / (time.process_time() - before))
    print(f"  two regions at once: {spread(rates)}/s in all, {spread(cores)} per core")


def _ms(done: list[Round], part: str) -> str:
    return f"{statistics.median(getattr(item, part) for item in done) * 1000:.1f} ms"


async def least(bench: Bench, place: Path) -> None:
    """
    Print what a batch of 100 takes at least: the bare pages, and what else a seal cannot leave out.

    That is, by a custodian: what lives is listed, the old root opened, a key made and used, its
    wrap opened again, a key destroyed and shown to be. Pages are opened before they are mirrored;
    as many bytes are put into a bucket and read back. There are five commits of a row: the shred,
    which is its caller's; the generation that is named before it is made; the segment that is
    intended, and then there; the generation that is gone. Rows of scopes and data keys, locks, and
    what else is asked in between, are not in it.
    """
    custodian, bucket = open_custodian(f"file:{place}/least-keys"), DirectoryStore(place / "least")
    parts: dict[str, list[float]] = {
        name: [] for name in ("pages", "custodian", "opening", "bucket", "commits")
    }
    async with bench.pool.acquire() as conn:
        await conn.execute("create table least (number bigint)")
        for number in range(1, 1 + WARM_UP_ROUNDS + 2 * ROUNDS):
            seconds, pages = await bench.bare.shred(100)
            parts["pages"].append(seconds)
            started = time.perf_counter()
            await custodian.create(REGION, number)
            wrapped = await custodian.wrap(REGION, number, os.urandom(KEY_BYTES), b"")
            await custodian.generations(REGION)
            for _ in range(2):
                await custodian.unwrap(REGION, number, wrapped, b"")
            await custodian.destroy(REGION, number)
            with suppress(KeyDestroyedError):
                await custodian.unwrap(REGION, number, wrapped, b"")
            parts["custodian"].append(time.perf_counter() - started)
            sealed = [encrypt_page(wrapped[-KEY_BYTES:], bytes(PAGE_BYTES), b"")] * pages
            started = time.perf_counter()
            for page in sealed:
                decrypt_page(wrapped[-KEY_BYTES:], page, b"")
            parts["opening"].append(time.perf_counter() - started)
            data, name = os.urandom(pages * PAGE_BYTES), f"keys/{number}"
            started = time.perf_counter()
            await bucket.put(name, _once(data), size_bytes=len(data))
            async with bucket.get(name) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == data
            parts["bucket"].append(time.perf_counter() - started)
            started = time.perf_counter()
            for _ in range(5):
                await conn.execute("insert into least values ($1)", number)
            parts["commits"].append(time.perf_counter() - started)
    await custodian.close()
    await bucket.close()
    each = {name: statistics.median(found[WARM_UP_ROUNDS:]) for name, found in parts.items()}
    total = sum(each.values())
    shown = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in each.items())
    print(f"  the least: {shown}: {total * 1000:.1f} ms, at most {100 / total:.0f}/s")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def durability(bench: Bench) -> None:
    """Print how often a shred with its seal waits for the disk, and how long one wait is."""
    calls, original = 0, os.fsync

    def counted(descriptor: Any) -> None:
        nonlocal calls
        calls += 1
        original(descriptor)

    os.fsync = counted  # type: ignore[assignment] # counted, and put back below
    flushes = await _wal_flushes(bench)
    try:
        for _ in range(ROUNDS):
            await shred_and_seal(bench, bench.take(100))
    finally:
        os.fsync = original
    flushes = await _wal_flushes(bench) - flushes
    with tempfile.TemporaryFile() as file:
        waits = list[float]()
        for _ in range(200):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            waits.append((time.perf_counter() - started) * 1000)
    each = statistics.median(waits)
    floor = (calls + flushes) / ROUNDS * each
    print(
        f"  the disk: {calls / ROUNDS:.0f} fsyncs by custodian and bucket and "
        f"{flushes / ROUNDS:.0f} by PostgreSQL for each batch, {each:.2f} ms each: "
        f"{floor:.1f} ms, at most {100_000 / floor:.0f}/s in batches of 100"
    )


async def _wal_flushes(bench: Bench) -> int:
    async with bench.pool.acquire() as conn:
        await conn.execute("select pg_stat_force_next_flush()")
        await asyncio.sleep(0.5)
        found: int = await conn.fetchval(
            "select coalesce(sum(fsyncs), 0)::bigint from pg_stat_io where object = 'wal'"
        )
    return found


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
        await shred_and_seal(bench, bench.take(100))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


async def _upload(bench: Bench, scope: UUID) -> float:
    started = time.perf_counter()
    identity = uuid4()
    with suppress(Exception):
        key, wrapped = await bench.keyring.new_key(REGION, scope, identity)
        for _ in range(3):
            async with bench.pool.acquire() as conn:
                stale = await bench.keyring.keep_keys(conn, [wrapped])
            if not stale:
                break
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
            await bench.keyring.open_key(wrapped_key(row))
            break
    return time.perf_counter() - started


def resident_mib() -> float:
    """Return how much memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def run(documents: int) -> None:
    """Print all figures."""
    CLOCK.start()
    # What the tree and its indexes take; the default of the embedded server is for a small vault.
    SETTINGS["shared_buffers"] = SHARED_BUFFERS
    cost = {}
    for size in (10_000, 100_000):
        if size >= documents:
            continue
        print(f"\n{size} documents")
        async with grown(size) as bench:
            cost[size] = (await batches(bench, (100,)))[100]
    print(f"\n{documents} documents: shreds with their seal, a second")
    async with grown(documents) as bench:
        cost[documents] = (await batches(bench, BATCHES))[100]
        await durability(bench)
        with tempfile.TemporaryDirectory(prefix="portvault-bench-") as place:
            await least(bench, Path(place))
        print("\nwhat uploads and reads wait for")
        for seals in (False, True):
            await latencies(bench, seals=seals)
        print("\ntwo regions")
        await bench.grow(OTHER, documents)
        await together(bench)
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
    uvloop.run(run(args.documents))


if __name__ == "__main__":
    main()
