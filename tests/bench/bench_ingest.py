"""
Ingest and read, beside what bounds them, in one run.

For each size, in turn: a bare aiohttp sink that reads and forgets the body; a direct write into the
directory store; a full ingest; a full read. Figures are medians of rounds with their spread; `cpu`
is CPU time of the server process per document, which the client and PostgreSQL do not disturb.
Then the server's peak memory while it takes documents of 1 MiB and of 25 MiB.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp

from tests.fixtures_process import VaultProcess
from vault.adapters.directory import DirectoryStore

KIB, MIB = 1024, 1024 * 1024
SIZES = {"60 KiB": (60 * KIB, 400), "1 MiB": (MIB, 150), "5 MiB": (5 * MIB, 40)}
ROUNDS, WORKERS = 5, 16
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


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the largest resident memory since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def forget_peak(pid: int) -> None:
    """Let the peak start again from now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def rate(count: int, step: Callable[[int], Awaitable[None]]) -> float:
    """Run `step` `count` times from several tasks at once and return how many a second."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await step(number)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work())
    return count / (time.perf_counter() - start)


async def measure(
    name: str, count: int, step: Callable[[int], Awaitable[None]], pid: int | None
) -> float:
    """Print and return the median of several rounds."""
    rates, cpu = [], []
    await rate(min(count, 32), step)
    for _ in range(ROUNDS):
        before = cpu_seconds(pid) if pid else 0.0
        rates.append(await rate(count, step))
        if pid:
            cpu.append((cpu_seconds(pid) - before) / count * 1000)
    middle = statistics.median(rates)
    text = f"  {name:<14}{middle:>8.0f}/s  [{min(rates):.0f} to {max(rates):.0f}]"
    if cpu:
        each = statistics.median(cpu)
        text += f"   cpu {each:6.3f} ms  {1000 / each if each else 0:>7.0f}/s per core"
    print(text, flush=True)
    return middle


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Yield 64 KiB at a time."""
    for start in range(0, len(data), 64 * KIB):
        yield data[start : start + 64 * KIB]


class Bench:
    """The servers under measurement."""

    def __init__(self, home: Path) -> None:
        self.vault = VaultProcess(home / "home", seal_interval_seconds="3600")
        self.store = DirectoryStore(home / "direct")
        self.sink_port = self.vault.port + 1 if self.vault.port < 65000 else self.vault.port - 1
        self.sink: subprocess.Popen[bytes] | None = None
        self.documents: list[str] = []

    async def start(self) -> None:
        """Start both, and open an order."""
        self.sink = subprocess.Popen([sys.executable, "-c", SINK, str(self.sink_port)])
        await self.vault.start()
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
        await self.vault.stop()
        if self.sink:
            self.sink.terminate()
            self.sink.wait()

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
        """Read one document."""
        document = self.documents[number % len(self.documents)]
        url = f"{self.vault.url}/v1/documents/{document}/content"
        headers = {"Access-Purpose": "verify-identity"}
        async with self.session.get(url, headers=headers) as response:
            assert response.status == 200
            await response.read()

    async def size(self, name: str, size: int, count: int) -> None:
        """Measure one size and print the ratios."""
        data = scan(size)
        print(name)

        async def sink(_: int) -> None:
            url = f"http://127.0.0.1:{self.sink_port}/sink"
            async with self.session.post(url, data=data) as response:
                assert response.status == 201

        async def write(number: int) -> None:
            await self.store.put(f"bench/{number}", pieces(data), size_bytes=size)

        async def ingest(_: int) -> None:
            await self.ingest(data)

        assert self.sink is not None
        bare = await measure("bare sink", count, sink, self.sink.pid)
        direct = await measure("store write", count, write, None)
        self.documents.clear()
        full = await measure("ingest", count, ingest, self.pid)
        read = await measure("read", count, self.read, self.pid)
        print(
            f"  ingest is {full / bare:.2f} of the bare sink and {full / direct:.2f} of a direct "
            f"write; read is {read / full:.2f} of ingest",
            flush=True,
        )

    async def memory(self) -> None:
        """Print the server's peak memory at two sizes."""
        for name, size in (("1 MiB", MIB), ("25 MiB", 25 * MIB)):
            data = scan(size)
            forget_peak(self.pid)
            await asyncio.gather(*(self.ingest(data) for _ in range(8)))
            print(f"peak memory, 8 uploads of {name} at once: {peak_mib(self.pid):.0f} MiB")


async def run() -> None:
    """Run everything on a temporary home."""
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        await bench.start()
        try:
            print(f"{os.cpu_count()} cores shared by client, server, store and PostgreSQL")
            await bench.memory()
            for name, (size, count) in SIZES.items():
                await bench.size(name, size, count)
        finally:
            await bench.stop()


def main() -> None:
    """Entry of `./scripts/bench ingest`."""
    asyncio.run(run())


if __name__ == "__main__":
    main()
