"""Uploads that go wrong: a clear refusal, nothing decryptable left behind, the process still up."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.fixtures_server import OPERATOR, Api, in_pieces, serving
from vault.actions.credentials import create_token
from vault.actions.ingest import collect_abandoned
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.credentials import Grant
from vault.domain.documents import JPEG


async def left(vault: Vault) -> tuple[int, int, int]:
    """Return how many documents, document keys and objects there are."""
    documents = await vault.pool.fetchval("select count(*) from document")
    keys = await vault.pool.fetchval("select count(*) from data_key where id <> scope")
    objects = len([item async for item in vault.stores["uk"].list("documents/")])
    return documents, keys, objects


async def settled(vault: Vault) -> tuple[int, int, int]:
    """Return what is left once the server has noticed that a client went away."""
    for _ in range(100):
        now = await left(vault)
        if now == (0, 0, 0):
            break
        await asyncio.sleep(0.05)
    return await left(vault)


class RawUpload:
    """An upload by hand over a socket, so that it can lie."""

    def __init__(self, api: Api, order: str, *headers: str) -> None:
        self._address = urlsplit(api.url)
        lines = [
            f"POST /v1/orders/{order}/documents?kind=passport HTTP/1.1",
            f"Host: {self._address.netloc}",
            f"Authorization: Bearer {api.tokens['porting']}",
            f"Content-Type: {JPEG}",
            *headers,
        ]
        self._head = "\r\n".join([*lines, "", ""]).encode()

    async def __aenter__(self) -> Self:
        """Connect and send the head."""
        self.reader, self.writer = await asyncio.open_connection(
            self._address.hostname, self._address.port
        )
        await self.send(self._head)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close."""
        self.writer.close()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the body of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        return int(head.split()[1]), await self.reader.readexactly(length)


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
async def test_too_large_is_refused_before_the_body(
    api: Api, vault: Vault, expect: tuple[str, ...]
) -> None:
    """Where the length is declared, 413 comes without a byte of the body having been sent."""
    order = await api.order()
    size = vault.config.document_bytes_max + 1
    async with RawUpload(api, order, f"Content-Length: {size}", *expect) as upload:
        status, body = await upload.answer()
    assert status == 413
    assert str(vault.config.document_bytes_max) in json.loads(body)["detail"]
    assert await left(vault) == (0, 0, 0)


async def test_the_limit_is_exact(api: Api, vault: Vault, passport: bytes) -> None:
    """A document of the limit's size is taken; one byte more is not, declared or not."""
    order, limit = await api.order(), vault.config.document_bytes_max
    largest = passport + bytes(limit - len(passport))
    status, document = await api.put(order, in_pieces(largest))
    assert (status, document["size_bytes"]) == (201, limit)

    async def more():
        yield largest
        yield b"!"

    assert (await api.put(order, more()))[0] == 413
    assert await left(vault) == (1, 1, 1)


async def test_a_body_shorter_than_declared_leaves_nothing(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """A client that goes away halfway leaves no document, no key and no object."""
    order = await api.order()
    async with RawUpload(api, order, f"Content-Length: {len(passport)}") as upload:
        await upload.send(passport[: len(passport) // 2])
        await asyncio.sleep(0.2)
        assert (await left(vault))[:2] == (1, 0), "announced, but without a key"
    assert await settled(vault) == (0, 0, 0)
    results = await vault.pool.fetch(
        "select result from access_record where action = 'document.ingest' and phase = 'outcome'"
    )
    assert [row["result"] for row in results] == ["aborted"]


async def test_a_body_longer_than_declared_is_cut_at_its_length(api: Api, passport: bytes) -> None:
    """What follows the declared length is no part of the document, and no request either."""
    order = await api.order()
    async with RawUpload(api, order, f"Content-Length: {len(passport)}") as upload:
        await upload.send(passport + b"GARBAGE\r\n\r\n")
        status, body = await upload.answer()
        assert status == 201
        assert (await upload.answer())[0] == 400
    assert await api.get(json.loads(body)["id"]) == (200, passport)


async def test_a_broken_chunked_body_is_refused(api: Api, vault: Vault, passport: bytes) -> None:
    """A chunk whose size is no number ends the upload and leaves nothing."""
    order = await api.order()
    async with RawUpload(api, order, "Transfer-Encoding: chunked") as upload:
        await upload.send(b"%x\r\n" % len(passport) + passport + b"\r\nnonsense\r\n")
        assert (await upload.answer())[0] == 400
    assert await settled(vault) == (0, 0, 0)


async def test_a_store_that_is_gone_refuses_and_comes_back(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Without the object directory an upload is refused with 503; with it the next one works."""
    order = await api.order()
    assert (await api.put(order, passport))[0] == 201
    root = vault.config.home / "objects" / "uk"
    root.rename(root.with_name("away"))
    root.write_text("in the way")
    assert (await api.put(order, passport))[0] == 503
    root.unlink()
    root.with_name("away").rename(root)
    status, document = await api.put(order, passport)
    assert status == 201
    assert await api.get(document["id"]) == (200, passport)


async def test_a_store_that_goes_in_the_middle_leaves_nothing_readable(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """The store vanishes while the body comes: 503, no key, and the collector clears the rest."""
    order = await api.order()
    root = vault.config.home / "objects" / "uk"
    async with RawUpload(api, order, f"Content-Length: {len(passport)}") as upload:
        await upload.send(passport[:300_000])
        await asyncio.sleep(0.2)
        root.rename(root.with_name("away"))
        root.write_text("in the way")
        await upload.send(passport[300_000:])
        assert (await upload.answer())[0] == 503
    assert (await left_rows(vault))[1] == 0
    root.unlink()
    root.with_name("away").rename(root)
    await age_uploads(vault)
    await collect_abandoned(vault, "uk")
    assert await settled(vault) == (0, 0, 0)


async def left_rows(vault: Vault) -> tuple[int, int]:
    """Return how many documents and document keys there are, without asking the store."""
    documents = await vault.pool.fetchval("select count(*) from document")
    keys = await vault.pool.fetchval("select count(*) from data_key where id <> scope")
    return documents, keys


async def age_uploads(vault: Vault) -> None:
    """Make every unfinished upload old enough to be swept up."""
    await vault.pool.execute(
        "update document set received_at = received_at - interval '2 hours' "
        "where custody = 'receiving'"
    )


async def refuse_connections(vault: Vault, refuse: bool) -> None:
    """Take the database away from the vault, or give it back, through another database."""
    address = vault.config.database
    name = urlsplit(address).path.lstrip("/")
    admin = await asyncpg.connect(address.replace(f"/{name}", "/portvault"))
    try:
        allow = "false" if refuse else "true"
        await admin.execute(f'alter database "{name}" with allow_connections {allow}')
        if refuse:
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
            )
    finally:
        await admin.close()


async def test_a_database_that_goes_in_the_middle_leaves_nothing_readable(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """The database vanishes while the body comes: 503 with Retry-After, and nothing is kept."""
    order = await api.order()
    async with RawUpload(api, order, f"Content-Length: {len(passport)}") as upload:
        await upload.send(passport[:300_000])
        await asyncio.sleep(0.2)
        await refuse_connections(vault, refuse=True)
        await upload.send(passport[300_000:])
        assert (await upload.answer())[0] == 503
    _, _, response = await api.call("GET", "/v1/orders")
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    await refuse_connections(vault, refuse=False)
    await age_uploads(vault)
    await collect_abandoned(vault, "uk")
    assert await left(vault) == (0, 0, 0)
    assert (await api.put(order, passport))[0] == 201


async def test_no_read_without_a_record(api: Api, pool: asyncpg.Pool, passport: bytes) -> None:
    """When access records cannot be written, content is refused with 503, and comes back after."""
    _, document = await api.put(await api.order(), passport)
    await pool.execute("alter table access_record rename to away")
    assert (await api.get(document["id"]))[0] == 503
    await pool.execute("alter table away rename to access_record")
    assert await api.get(document["id"]) == (200, passport)


async def test_an_altered_object_is_cut_off(api: Api, vault: Vault, passport: bytes) -> None:
    """A flipped bit in the store is never handed out as a whole document."""
    import aiohttp

    _, document = await api.put(await api.order(), passport)
    path = vault.config.home / "objects" / "uk" / "documents" / document["id"]
    sealed = bytearray(path.read_bytes())
    for position in (len(sealed) - 20, 100):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        # Found before the first piece goes out it is an error; after that the answer is cut off.
        with suppress(aiohttp.ClientPayloadError):
            assert (await api.get(document["id"]))[0] == 503
    path.write_bytes(sealed[:-100])
    with suppress(aiohttp.ClientPayloadError):
        assert (await api.get(document["id"]))[0] == 503
    path.write_bytes(sealed)
    assert await api.get(document["id"]) == (200, passport)


async def test_a_full_disk_refuses_and_keeps_what_it_acknowledged(
    config: Config, small_disk: Path, passport: bytes
) -> None:
    """Once the disk is full an upload is refused with a reason; what went before stays whole."""
    settings = replace(config, regions=("uk",), objects=f"dir:{small_disk}/objects")
    async with open_vault(settings, dsn=settings.database) as vault, serving(vault) as api:
        order, kept = await api.order(), list[str]()
        status, body = await api.put(order, passport)
        kept.append(body["id"])
        for _ in range(6):
            status, body = await api.put(order, passport)
            if status == 503:
                break
            kept.append(body["id"])
        assert status == 503
        assert "room" in body["detail"]
        assert await left(vault) == (len(kept), len(kept), len(kept))
        for document in kept:
            assert await api.get(document) == (200, passport)


async def test_so_many_uploads_at_once_and_no_more(config: Config, passport: bytes) -> None:
    """
    One token alone has half of the places; the next upload of it is told to come again.

    Somebody else's is taken meanwhile, and its own as soon as one has ended.
    """
    own = replace(config, uploads_max=4, upload_idle_seconds=30.0)
    async with open_vault(own, dsn=own.database) as vault, serving(vault) as api:
        order, go_on = await api.order(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield passport[:100]
            await go_on.wait()
            yield passport[100:]

        under_way = [asyncio.create_task(api.put(order, slow())) for _ in range(2)]
        path = f"/v1/orders/{order}/documents?kind=passport"
        intents = "select count(*) from access_record where document is not null"
        for _ in range(500):
            if await vault.pool.fetchval(intents) == len(under_way):
                break
            await asyncio.sleep(0.01)
        status, problem, response = await api.call("POST", path, data=passport)
        assert (status, response.headers["Retry-After"]) == (503, "5")
        assert "too many uploads" in problem["detail"]
        grant = Grant("porting", frozenset({"uk"}))
        _, other = await create_token(vault, OPERATOR, grant, label="other")
        theirs = {"Authorization": f"Bearer {other}"}
        assert (await api.call("POST", path, data=passport, headers=theirs))[0] == 201
        go_on.set()
        assert [status for status, _ in await asyncio.gather(*under_way)] == [201, 201]
        assert (await api.put(order, passport))[0] == 201
