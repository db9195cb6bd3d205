"""
Ingest and read, beside what bounds them, in one run: with objects in S3 and in a directory.

For each size, in turn: a bare aiohttp sink that reads and forgets the body; a write straight into
the store; a full ingest; a full read. `per core` is by CPU time of the server process alone (of
this one for the direct write), so that client, store and PostgreSQL, which share the machine's
cores, do not count; but a busy machine makes every CPU second do less, so compare with the sink of
the same run. The worker runs in a process of its own. The S3 server is a stand-in without disk or
TLS. Figures are medians of rounds, with the least and the most. Then latency: a read, and a direct
fetch of the same bytes from the S3 stand-in, one at a time. Then the server's peak memory while it
takes documents of 1 MiB and of 25 MiB.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import uvloop

from tests.fixtures_process import VaultProcess
from vault.adapters.directory import DirectoryStore
from vault.adapters.s3 import S3Store
from vault.adapters.s3_requests import Bucket
from vault.context import ObjectStore

KIB, MIB = 1024, 1024 * 1024
SIZES = {"60 KiB": (60 * KIB, 400), "1 MiB": (MIB, 120), "5 MiB": (5 * MIB, 40)}
ROUNDS, WORKERS = 5, 16
#: The latest documents are read; the S3 stand-in has no room for all.
READ_BACK = 30
FETCHES = 100
JPEG_START = bytes.fromhex("ffd8ffe000104a46494600010100000100010000")

SINK = """
import asyncio, sys
from aiohttp import web
async def sink(request):
    async for _ in request.content.iter_any():
        pass
    return web.json_response({}, status=201)
app = web.Application()
app.router.add_post("/sink", sink)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""


def scan(size: int) -> bytes:
    """Return bytes that look like a JPEG and do not compress."""
    return JPEG_START + os.urandom(size - len(JPEG_START))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, by the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_mib(pid: int) -> float:
    """Return the largest resident memory since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def forget_peak(pid: int) -> None:
    """Let the peak start again from now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def rate(count: int, step: Callable[[int], Awaitable[None]], workers: int = WORKERS) -> float:
    """Run `step` `count` times from so many tasks at once and return how many a second."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await step(number)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return count / (time.perf_counter() - start)


async def measure(name: str, count: int, step: Callable[[int], Awaitable[None]], pid: int) -> float:
    """Print the rounds' medians and return the CPU milliseconds of one."""
    rates, cpu = [], []
    await rate(min(count, 32), step)
    for _ in range(ROUNDS):
        before = cpu_seconds(pid)
        rates.append(await rate(count, step))
        cpu.append((cpu_seconds(pid) - before) / count * 1000)
    each = statistics.median(cpu)
    print(
        f"    {name:<13}{statistics.median(rates):>7.0f}/s [{min(rates):.0f} to {max(rates):.0f}]"
        f"   cpu {each:.3f} ms [{min(cpu):.3f} to {max(cpu):.3f}]   {1000 / each:.0f}/s per core",
        flush=True,
    )
    return each


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Yield 64 KiB at a time."""
    for start in range(0, len(data), 64 * KIB):
        yield data[start : start + 64 * KIB]


class Bench:
    """One vault, with its worker beside it."""

    def __init__(self, home: Path, store: ObjectStore, sink: tuple[int, int], **settings: str):
        self.vault = VaultProcess(home, seal_interval_seconds="3600", worker="false", **settings)
        self.store, (self.sink_port, self.sink_pid) = store, sink
        self.documents: list[str] = []

    async def start(self) -> None:
        """Start server and worker, and open an order."""
        await self.vault.start()
        self.worker = await self.vault.command("worker")
        made = await self.vault.json("token", "create", "--role", "porting", "--region", "uk")
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {made['token']}", "Content-Type": "image/jpeg"}
        )
        fields = {"region": "uk", "customer": "bench", "numbers": ["+442079460123"]}
        async with self.session.post(self.vault.url + "/v1/orders", json=fields) as response:
            self.order = (await response.json())["id"]

    async def stop(self) -> None:
        """Stop both."""
        await self.session.close()
        self.worker.terminate()
        await self.worker.communicate()
        await self.vault.stop()
        await self.store.close()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self.vault.process is not None
        return self.vault.process.pid

    async def ingest(self, data: bytes) -> None:
        """Upload one document."""
        url = f"{self.vault.url}/v1/orders/{self.order}/documents?kind=passport"
        async with self.session.post(url, data=data) as response:
            assert response.status == 201, await response.text()
            self.documents.append((await response.json())["id"])

    async def read(self, number: int) -> None:
        """Read one of the latest documents."""
        latest = self.documents[-READ_BACK:]
        url = f"{self.vault.url}/v1/documents/{latest[number % len(latest)]}/content"
        headers = {"Access-Purpose": "verify-identity"}
        async with self.session.get(url, headers=headers) as response:
            assert response.status == 200
            await response.read()

    async def size(self, name: str, size: int, count: int) -> None:
        """Measure one size and print the ratios."""
        data = scan(size)
        print(f"  {name}")

        async def sink(_: int) -> None:
            url = f"http://127.0.0.1:{self.sink_port}/sink"
            async with self.session.post(url, data=data) as response:
                assert response.status == 201

        async def write(number: int) -> None:
            await self.store.put(f"bench/{number}", pieces(data), size_bytes=size)

        async def ingest(_: int) -> None:
            await self.ingest(data)

        bare = await measure("bare sink", count, sink, self.sink_pid)
        direct = await measure("store write", count, write, os.getpid())
        full = await measure("ingest", count, ingest, self.pid)
        read = await measure("read", count, self.read, self.pid)
        print(
            f"    in and out again {1000 / (full + read):.0f}/s per core; an ingest takes the CPU "
            f"of {full / bare:.1f} bare sinks, of which the direct write is {direct / bare:.1f}; "
            f"a read {read / bare:.1f}",
            flush=True,
        )

    async def latency(self, name: str, size: int, address: str) -> None:
        """Print what a read adds to a direct fetch, one at a time."""
        data = scan(size)
        await self.ingest(data)
        async with aiohttp.ClientSession() as direct:
            async with direct.put(f"{address}/bench/direct", data=data) as response:
                assert response.status == 200

            async def fetch() -> None:
                async with direct.get(f"{address}/bench/direct") as response:
                    await response.read()

            async def read() -> None:
                await self.read(READ_BACK - 1)

            both = {"direct": list[float](), "read": list[float]()}
            for _ in range(FETCHES):
                for kind, step in (("direct", fetch), ("read", read)):
                    start = time.perf_counter()
                    await step()
                    both[kind].append((time.perf_counter() - start) * 1000)
        middle = {kind: statistics.median(times) for kind, times in both.items()}
        print(
            f"  {name}: direct fetch p50 {middle['direct']:.2f} ms, read {middle['read']:.2f} ms, "
            f"added {middle['read'] - middle['direct']:.2f} ms",
            flush=True,
        )

    async def memory(self) -> None:
        """Print the server's peak memory at two sizes."""
        for name, size in (("1 MiB", MIB), ("25 MiB", 25 * MIB)):
            data = scan(size)
            forget_peak(self.pid)
            await asyncio.gather(*(self.ingest(data) for _ in range(8)))
            print(f"  peak memory, 8 uploads of {name} at once: {peak_mib(self.pid):.0f} MiB")


async def run(home: Path, sink: tuple[int, int], s3_port: int) -> None:
    """Measure with each store."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    (home / "secret").touch(0o600)
    (home / "secret").write_text("secret")
    place = Bucket(f"127.0.0.1:{s3_port}", "direct", False, "eu", "key", "secret")
    over_s3 = Bench(
        home / "s3",
        S3Store(place, timeout_seconds=30),
        sink,
        objects=f"s3+http://127.0.0.1:{s3_port}/bucket-{{region}}",
        s3_access_key="key",
        s3_secret_key_file=str(home / "secret"),
    )
    in_directory = Bench(home / "directory", DirectoryStore(home / "direct"), sink)
    for name, bench in (("objects in S3", over_s3), ("objects in a directory", in_directory)):
        print(name)
        await bench.start()
        try:
            for label, (size, count) in SIZES.items():
                await bench.size(label, size, count)
            for label, (size, _) in SIZES.items():
                await bench.latency(label, size, f"http://127.0.0.1:{s3_port}")
            await bench.memory()
        finally:
            await bench.stop()


def main() -> None:
    """Entry of `./scripts/bench ingest`."""
    sink_port, s3_port = free_port(), free_port()
    sink = subprocess.Popen([sys.executable, "-c", SINK, str(sink_port)])
    s3 = subprocess.Popen([sys.executable, "-m", "tests.bench.s3_stand_in", str(s3_port)])
    try:
        time.sleep(2)
        with tempfile.TemporaryDirectory() as directory:
            uvloop.run(run(Path(directory), (sink_port, sink.pid), s3_port))
    finally:
        for process in (sink, s3):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
