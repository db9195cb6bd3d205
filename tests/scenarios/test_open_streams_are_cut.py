"""No bytes without a record, not even the rest: when records cannot be written, streams end."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.access_records import append
from tests.fixtures_objects import disk
from tests.fixtures_server import Api, in_pieces, serving
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import RecordsUnavailableError
from vault.migrate import migrate

#: More than what lies in buffers between the vault and a reader who waits.
SCAN_BYTES = 20 * 1024 * 1024
SLOW_SECONDS = 10.0


class Scene:
    """A vault on a database of its own, which a test may ruin."""

    def __init__(self, config: Config, place: Path) -> None:
        self.place = place
        self.postgres = EmbeddedPostgres(place / "home")
        self.config = replace(config, regions=("uk",))
        self.api: Api
        self.vault: Vault
        self.owner: asyncpg.Connection

    async def open(self, stack: AsyncExitStack) -> None:
        """Start it, and serve."""
        dsn = await self.postgres.start()
        stack.push_async_callback(self.postgres.stop)
        await migrate(dsn)
        self.owner = await asyncpg.connect(dsn)
        stack.push_async_callback(self.owner.close)
        self.vault = await stack.enter_async_context(open_vault(self.config, dsn=dsn))
        self.api = await stack.enter_async_context(serving(self.vault))


@pytest.fixture
async def scene(config: Config, tmp_path: Path) -> AsyncIterator[Scene]:
    """Serve a vault from a disk that can be filled."""
    with disk(tmp_path / "disk", 600) as place:
        async with AsyncExitStack() as stack:
            made = Scene(config, place)
            await made.open(stack)
            yield made


@asynccontextmanager
async def locked(scene: Scene) -> AsyncIterator[None]:
    """Somebody holds the table."""
    async with scene.owner.transaction():
        await scene.owner.execute("lock table access_record in share mode")
        yield


@asynccontextmanager
async def forbidden(scene: Scene) -> AsyncIterator[None]:
    """The vault may not write records any more."""
    await scene.owner.execute("revoke insert on access_record from portvault_service")
    yield
    await scene.owner.execute("grant insert on access_record to portvault_service")


@asynccontextmanager
async def full(scene: Scene) -> AsyncIterator[None]:
    """The database's disk is full: what is left is filled with records, as long as they go in."""
    filling = scene.place / "filling"
    with filling.open("wb") as file:
        usage = os.statvfs(scene.place)
        file.truncate(usage.f_bavail * usage.f_frsize)
        os.posix_fallocate(file.fileno(), 0, usage.f_bavail * usage.f_frsize)
    with pytest.raises(RecordsUnavailableError):
        for _ in range(1000):
            await append(scene.vault, 50)
    # What is too large for the last page may have left a little room in it.
    with pytest.raises(RecordsUnavailableError):
        for _ in range(1000):
            await append(scene.vault, 1)
    yield
    filling.unlink()


@asynccontextmanager
async def down(scene: Scene) -> AsyncIterator[None]:
    """The database is stopped."""
    await scene.owner.close()
    await scene.postgres.stop()
    yield
    await scene.postgres.start()


@pytest.mark.parametrize("fault", [locked, forbidden, full, down], ids=lambda f: f.__name__)
async def test_what_is_open_is_cut_and_what_comes_is_refused(
    scene: Scene, passport: bytes, fault
) -> None:
    """A stream that flows stops short, new readers get 503 in time, and then all is well again."""
    scan = passport + bytes(SCAN_BYTES)
    api, path = scene.api, await stored(scene.api, scan)
    headers = {
        "Authorization": f"Bearer {api.tokens['porting']}",
        "Access-Purpose": "verify-identity",
    }
    limit = scene.config.record_timeout_seconds + SLOW_SECONDS
    async with api.session.get(api.url + path, headers=headers) as response:
        assert response.status == 200
        got = len(await response.content.readexactly(1000))
        async with fault(scene):
            await asyncio.sleep(scene.config.record_renewal_seconds)
            async with asyncio.timeout(limit):
                with pytest.raises(aiohttp.ClientPayloadError):
                    while data := await response.content.read(65536):
                        got += len(data)
                status, _, refused = await api.call(
                    "GET", path, headers={"Access-Purpose": "verify-identity"}
                )
            assert (status, "Retry-After" in refused.headers) == (503, True)
            assert got < len(scan)
    async with asyncio.timeout(limit):
        while await read(api, path) != scan:
            await asyncio.sleep(0.1)


async def read(api: Api, path: str) -> bytes | None:
    """Read a document; None while it is refused."""
    status, body, _ = await api.call("GET", path, headers={"Access-Purpose": "verify-identity"})
    return body if status == 200 else None


async def stored(api: Api, scan: bytes) -> str:
    """Put a document into the vault; returns where it is read."""
    status, document, _ = await api.call(
        "POST",
        f"/v1/orders/{await api.order()}/documents?kind=passport",
        data=in_pieces(scan),
    )
    assert status == 201
    return f"/v1/documents/{document['id']}/content"


async def test_a_long_stream_says_how_far_it_is(api: Api, vault: Vault, passport: bytes) -> None:
    """While a stream is open its intent is renewed, with the bytes that went out so far."""
    path = await stored(api, passport + bytes(SCAN_BYTES))
    headers = {
        "Authorization": f"Bearer {api.tokens['porting']}",
        "Access-Purpose": "verify-identity",
    }
    async with api.session.get(api.url + path, headers=headers) as response:
        while await response.content.read(1 << 20):
            await asyncio.sleep(vault.config.record_renewal_seconds / 4)
    rows = await vault.pool.fetch(
        "select * from access_record where action = 'document.read' order by at"
    )
    intent, *renewed, outcome = rows
    assert (intent["phase"], outcome["phase"], outcome["result"]) == (
        "intent",
        "outcome",
        "completed",
    )
    assert len(renewed) >= 2
    sizes = [row["size_bytes"] for row in renewed]
    assert {row["phase"] for row in renewed} == {"progress"}
    assert {row["intent"] for row in renewed} == {intent["id"]}
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < outcome["size_bytes"] == len(passport) + SCAN_BYTES
