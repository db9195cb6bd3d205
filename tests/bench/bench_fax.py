"""
Faxes of 60 KiB a second: in, in and out again, and delivered, with records, and what bounds them.

That is a bare aiohttp sink, and `bare_pass`, which does what the design's prototype did.

`per core` is by CPU time of the server process alone: client, sandboxed children, PostgreSQL and
store, which share the machine's cores, do not count; but a busy machine makes every CPU second do
less, so compare with the sink of the same run. The server has a core of its own, all else the
others; 16 gateways keep it busy. The worker runs in a process of its own. The S3 server is a
stand-in without disk or TLS, and the client the leanest that we have, since both share a core with
all else. Figures are medians of rounds, with the least and the most; p99 is of a fax's whole way,
while 16 are on theirs. Then two servers on one database, the second among all else. Then the soak,
in a directory: 100,000 faxes (set FAX_SOAK for another number) in and out, and what tables, bucket,
memory and tree hold before and, once all is purged and sealed, after.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import uvloop

from tests.bench.bench_ingest import SINK, cpu_seconds, free_port, rate
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import SAMPLES
from vault.adapters.http_client import HttpClient
from vault.adapters.postgres.cluster import NAME, Cluster

#: As many at once as the design's prototypes had.
GATEWAYS = 16
COUNT, ROUNDS = 800, 9
#: What the design asks for, in bare sinks of the machine of its prototypes, which took 0.064 ms.
#: Of what is delivered and shredded in the same count it says nothing.
SINKS_A_SECOND = 15_415
TARGETS = {"in": SINKS_A_SECOND / 2_000, "in and out": SINKS_A_SECOND / 1_000, "delivered": None}
SIZE = 60 * 1024
SAID = "direction=inbound&from=%2B442079460999&to=%2B442079460123"
SOAK = int(os.environ.get("FAX_SOAK", "100000"))
SOAK_TOGETHER = 32
SETTLE_SECONDS = 300.0
TABLES = ("key_node", "key_scope", "data_key", "key_gone", "log_queue", "log_open", "idempotency")


def fax() -> bytes:
    """Return a fax of two pages and 60 KiB; what follows its last strip is not looked at."""
    data = (SAMPLES / "fax-2p-g3.tif").read_bytes()
    return data + os.urandom(SIZE - len(data))


def resident_mib(pid: int) -> float:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def leave_core() -> None:
    """Leave the first core, with what this process starts from now on, where there are others."""
    if len(others := os.sched_getaffinity(0) - {0}):
        os.sched_setaffinity(0, others)


def give_core(pid: int) -> None:
    """Give the first core to a process, and not to what it has started."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {0})


@dataclass(frozen=True, slots=True)
class Step:
    """What is measured, of which processes, and how often in a round."""

    pids: list[int]
    do: Callable[[int], Awaitable[object]]
    count: int = COUNT


@dataclass
class Figures:
    """What was measured of one kind of step."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def timed(self, step: Callable[[int], Awaitable[object]]) -> Callable[[int], Awaitable[None]]:
        """Return the step, which notes how long it takes."""

        async def one(number: int) -> None:
            start = time.perf_counter()
            await step(number)
            self.times.append((time.perf_counter() - start) * 1000)

        return one

    def show(self, name: str) -> float:
        """Print it and return the CPU milliseconds of one step."""
        each, p99 = statistics.median(self.cpu), statistics.quantiles(self.times, n=100)[98]
        print(
            f"  {name:<22}{statistics.median(self.rates):>7.0f}/s "
            f"[{min(self.rates):.0f} to {max(self.rates):.0f}]"
            f"  cpu {each:.3f} ms [{min(self.cpu):.3f} to {max(self.cpu):.3f}]"
            f"  {1000 / each:.0f}/s per core  p99 {p99:.1f} ms",
            flush=True,
        )
        return each


class Bench:
    """One vault, or two servers of one, with the worker beside them."""

    def __init__(self, home: Path, sink_port: int, **settings: str) -> None:
        settings["worker"] = "false"
        self.vault = VaultProcess(home, **settings)
        self.second = VaultProcess(home, **settings)
        for vault in (self.vault, self.second):
            # Keys are kept for as long as they are by default, not for half a second as in tests.
            del vault.environment["PORTVAULT_KEY_CACHE_SECONDS"]
        self.sink_port = sink_port
        self.data = fax()
        self.clients: dict[str, HttpClient] = {}

    async def start(self) -> None:
        """Start server and worker, and make a gateway's token."""
        await self.vault.start()
        self.worker = await self.vault.command("worker")
        made = await self.vault.json("token", "create", "--role", "fax-gateway", "--region", "uk")
        self.headers = {"Authorization": f"Bearer {made['token']}", "Content-Type": "image/tiff"}

    async def stop(self) -> None:
        """Stop all."""
        for client in self.clients.values():
            await client.close()
        self.worker.terminate()
        await self.worker.communicate()
        await self.vault.stop()

    def pids(self, *servers: VaultProcess) -> list[int]:
        """Return the processes of servers."""
        return [server.process.pid for server in servers if server.process is not None]

    async def ask(self, method: str, url: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request, with the client that costs least; return status and body."""
        address = urlsplit(url)
        if address.netloc not in self.clients:
            self.clients[address.netloc] = HttpClient(
                address.netloc, secure=False, timeout_seconds=SETTLE_SECONDS
            )
        headers = {"Host": address.netloc, **self.headers}
        if method == "POST":
            headers["Content-Length"] = str(len(body))
        target = f"{address.path}?{address.query}" if address.query else address.path
        exchange = await self.clients[address.netloc].send(method, target, headers, body)
        try:
            await exchange.answer()
            return exchange.status, await exchange.whole(2 * SIZE)
        finally:
            exchange.end()

    async def put(self, url: str) -> str:
        """Bring a fax."""
        status, body = await self.ask("POST", f"{url}/v1/faxes?{SAID}", self.data)
        assert status == 201, body
        return str(json.loads(body)["id"])

    async def through(self, url: str) -> str:
        """Bring a fax and fetch it; returns its address."""
        path = f"{url}/v1/faxes/{await self.put(url)}"
        status, body = await self.ask("GET", path + "/content")
        assert status == 200
        assert body == self.data
        return path

    async def deliver(self, url: str) -> None:
        """Bring a fax, fetch it and acknowledge it, which shreds it."""
        path = await self.through(url)
        status, body = await self.ask("POST", path + "/actions/deliver")
        assert status == 200, body

    async def measure(self, steps: dict[str, Step]) -> dict[str, float]:
        """
        Print the rounds' medians and return the CPU milliseconds of one, by name.

        A round of one comes after a round of the others, so that all have the same minutes.
        """
        figures = {name: Figures() for name in steps}
        for name, step in steps.items():
            await rate(GATEWAYS, figures[name].timed(step.do), GATEWAYS)
            figures[name].times.clear()
        for _ in range(ROUNDS):
            for name, step in steps.items():
                before, found = sum(map(cpu_seconds, step.pids)), figures[name]
                found.rates.append(await rate(step.count, found.timed(step.do), GATEWAYS))
                found.cpu.append((sum(map(cpu_seconds, step.pids)) - before) / step.count * 1000)
        return {name: found.show(name) for name, found in figures.items()}

    async def speed(self, sink_pid: int, s3_port: int) -> None:
        """Measure the sink and each way, beside the bare pass; with one server, then with two."""
        urls = [self.vault.url]

        async def sink(_: int) -> None:
            address = f"http://127.0.0.1:{self.sink_port}/sink"
            assert (await self.ask("POST", address, self.data))[0] == 201

        async def into(number: int) -> None:
            await self.put(urls[number % len(urls)])

        async def through(number: int) -> None:
            await self.through(urls[number % len(urls)])

        async def deliver(number: int) -> None:
            await self.deliver(urls[number % len(urls)])

        # The sandboxed children are started before the server has a core, which is not theirs.
        await rate(GATEWAYS, into, GATEWAYS)
        one = self.pids(self.vault)
        async with self.bare_pass(s3_port) as (bare_url, bare):
            for pid in (sink_pid, bare, *one):
                give_core(pid)
            cpu = await self.measure(
                {
                    # So short that a round of it takes more of them.
                    "bare sink": Step([sink_pid], sink, 5 * COUNT),
                    "bare pass, in": Step([bare], lambda _: self.put(bare_url)),
                    "in": Step(one, into),
                    "bare pass, in and out": Step([bare], lambda _: self.through(bare_url)),
                    "in and out": Step(one, through),
                    "bare pass, delivered": Step([bare], lambda _: self.deliver(bare_url)),
                    "delivered": Step(one, deliver),
                }
            )
        for name, sinks in TARGETS.items():
            print(
                f"  {name}: the CPU of {cpu[name] / cpu['bare sink']:.1f} bare sinks"
                f"{f' (at most {sinks:.1f})' if sinks else ''} and of "
                f"{cpu[name] / cpu['bare pass, ' + name]:.2f} bare passes",
                flush=True,
            )
        self.second.environment["PORTVAULT_DATABASE"] = self.database
        await self.second.start()
        urls.append(self.second.url)
        both = self.pids(self.vault, self.second)
        await self.measure(
            {
                "in, two servers": Step(both, into),
                "in and out, two": Step(both, through),
                "delivered, two": Step(both, deliver),
            }
        )
        await self.second.stop()

    @property
    def database(self) -> str:
        """The address of the vault's own database."""
        return Cluster(self.vault.home, durable=True).address(NAME)

    @asynccontextmanager
    async def bare_pass(self, s3_port: int) -> AsyncIterator[tuple[str, int]]:
        """Run a bare pass on the same database and store; gives its address and its process."""
        port = free_port()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.bare_pass"),
                *(str(port), self.database, f"127.0.0.1:{s3_port}"),
            ]
        )
        try:
            await asyncio.sleep(2)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()
            process.wait()

    async def held(self) -> dict[str, object]:
        """Return what is held: rows, the tree, the bucket's objects, the server's memory."""
        conn = await asyncpg.connect(self.database)
        try:
            found: dict[str, object] = {
                name: await conn.fetchval(f"select count(*) from {name}") for name in TABLES
            }
            found["faxes in custody"] = await conn.fetchval(
                "select count(*) from fax where custody = 'stored'"
            )
            found["unpurged or unsealed"] = await conn.fetchval(
                "select count(*) from fax where purged_at is null or custody <> 'sealed'"
            )
            found["receipts"] = await conn.fetchval("select count(*) from fax")
            found["records"] = await conn.fetchval("select count(*) from access_record")
            found["fax table MiB"] = await conn.fetchval(
                "select pg_total_relation_size('fax') / 1048576"
            )
            found["key tables MiB"] = await conn.fetchval(
                "select (pg_total_relation_size('data_key') + pg_total_relation_size('key_scope') "
                "+ pg_total_relation_size('key_node') + pg_total_relation_size('key_gone')) "
                "/ 1048576"
            )
        finally:
            await conn.close()
        found["server MiB"] = round(resident_mib(self.pids(self.vault)[0]))
        objects = self.vault.home / "objects" / "uk" / "documents"
        found["objects"] = len(list(objects.iterdir())) if objects.exists() else 0
        return found

    async def settled(self) -> None:
        """Wait until every fax that has ended is purged and sealed, and the log has its order."""
        give_up_at = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < give_up_at:
            held = await self.held()
            if not held["unpurged or unsealed"] and not held["log_queue"] and not held["key_gone"]:
                return
            await asyncio.sleep(2)

    async def soak(self) -> None:
        """Pass many faxes through and compare what is held."""
        await asyncio.gather(*(self.deliver(self.vault.url) for _ in range(SOAK_TOGETHER)))
        await self.settled()
        before = await self.held()
        numbers = iter(range(SOAK))

        async def work() -> None:
            for _ in numbers:
                await self.deliver(self.vault.url)

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(SOAK_TOGETHER):
                group.create_task(work())
        took = time.perf_counter() - start
        print(f"  {SOAK} faxes in and out in {took:.0f} s, {SOAK / took:.0f}/s", flush=True)
        await self.settled()
        after = await self.held()
        for name, value in before.items():
            print(f"    {name:<22}{value!s:>10} before {after[name]!s:>10} after", flush=True)


async def run(home: Path, sink_port: int, sink_pid: int, s3_port: int) -> None:
    """Measure, then soak."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    (home / "secret").touch(0o600)
    (home / "secret").write_text("secret")
    over_s3 = Bench(
        home / "s3",
        sink_port,
        objects=f"s3+http://127.0.0.1:{s3_port}/bucket-{{region}}",
        s3_access_key="key",
        s3_secret_key_file=str(home / "secret"),
    )
    print("faxes of 60 KiB, objects in S3")
    await over_s3.start()
    try:
        await over_s3.speed(sink_pid, s3_port)
    finally:
        await over_s3.stop()
    in_directory = Bench(home / "directory", sink_port, seal_interval_seconds="5")
    print("soak, objects in a directory")
    await in_directory.start()
    try:
        await in_directory.soak()
    finally:
        await in_directory.stop()


def main() -> None:
    """Entry of `./scripts/bench fax`."""
    leave_core()
    sink_port, s3_port = free_port(), free_port()
    sink = subprocess.Popen([sys.executable, "-c", SINK, str(sink_port)])
    s3 = subprocess.Popen([sys.executable, "-m", "tests.bench.s3_stand_in", str(s3_port)])
    try:
        time.sleep(2)
        with tempfile.TemporaryDirectory() as directory:
            uvloop.run(run(Path(directory), sink_port, sink.pid, s3_port))
    finally:
        for process in (sink, s3):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
