"""A vault as a user runs it: `portvault serve` in a process of its own, which may be killed."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from vault.adapters.postgres.cluster import NAME, Cluster
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.migrate import migrate

START_TRIES = 600
_template: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def remove_template() -> Iterator[None]:
    """Remove the copied database at the end; a worker of many may not come to its own exit."""
    yield
    for place in _template:
        shutil.rmtree(place, ignore_errors=True)


async def plant_database(home: Path) -> None:
    """Copy a migrated database into a home; that it is made from nothing is tested elsewhere."""
    if not _template:
        place = Path(tempfile.mkdtemp(prefix="portvault-template-"))
        server = EmbeddedPostgres(place, durable=False)
        try:
            await migrate(await server.start())
        finally:
            await server.stop()
        _template.append(place)
    home.mkdir(mode=0o700)
    copy = ["cp", "-a", "--sparse=always", str(_template[0] / "postgres"), str(home)]
    await asyncio.to_thread(subprocess.run, copy, check=True)


class VaultProcess:
    """One home with its server; `kill` is kill -9 and takes the whole machine's worth of it."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if "PORTVAULT" not in name},
            "PORTVAULT_HOME": str(home),
            "PORTVAULT_PORT": str(self.port),
            "PORTVAULT_SERVER": self.url,
            "PORTVAULT_REGIONS": "uk",
            "PORTVAULT_REVERSAL_GRACE_SECONDS": "0",
            "PORTVAULT_KEY_CACHE_SECONDS": "0.5",
            **{f"PORTVAULT_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home.parent / "serve.log"

    async def start(self) -> None:
        """Start and wait until it serves."""
        if "PORTVAULT_DATABASE" not in self.environment and not self.home.exists():
            await plant_database(self.home)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vault.cli", "serve"],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until it serves."""
        assert self.process is not None
        async with aiohttp.ClientSession() as session:
            for _ in range(START_TRIES):
                assert self.process.poll() is None, self.log.read_text()
                try:
                    async with session.get(self.url + "/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait)

    async def database(self) -> asyncpg.Connection:
        """Connect to the embedded database, as its owner may."""
        return await asyncpg.connect(Cluster(self.home, durable=True).address(NAME))

    async def command(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        """Start a `portvault` command against this vault, and do not wait for it."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vault.cli",
            *arguments,
            env={**self.environment, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Run a `portvault` command to its end."""
        process = await self.command(*arguments, **variables)
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def json(self, *arguments: str, **variables: str) -> Any:
        """Run a command with `--json`, which must succeed, and return what it says."""
        status, out, err = await self.run(*arguments, "--json", **variables)
        assert status == 0, err
        return json.loads(out)


@pytest.fixture
async def vault_process(tmp_path: Path) -> AsyncIterator[VaultProcess]:
    """Serve a vault on a temporary home; what is left at the end is killed."""
    made = VaultProcess(tmp_path / "home")
    await made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        await made.stop()
