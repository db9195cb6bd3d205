"""S3 stores on bad days: keys, buckets, servers and networks that are wrong or go away."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from minio.datatypes import Part

from tests.fixtures_objects import S3Bucket
from vault.adapters import s3_upload
from vault.adapters.s3 import S3Store
from vault.context import ObjectStore
from vault.errors import ObjectStoreUnavailableError

MIB = 1024 * 1024
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECRET = "a-secret-that-is-wrong"


async def blocks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(64 * 1024)


async def refuse_everything(store: ObjectStore, match: str, seconds: float = 5.0) -> None:
    """Assert that every call raises the error that says what to do, within the time."""

    async def read() -> None:
        async with store.get("documents/a") as chunks:
            [chunk async for chunk in chunks]

    async def listed() -> None:
        [item async for item in store.list()]

    calls = {
        "put": lambda: store.put("documents/a", blocks(4), size_bytes=4 * 64 * 1024),
        "parts": lambda: store.put("documents/a", blocks(100), size_bytes=None),
        "get": read,
        "purge": lambda: store.purge("documents/a"),
        "list": listed,
        "check": store.check,
    }
    for name, call in calls.items():
        begun = time.monotonic()
        with pytest.raises(ObjectStoreUnavailableError, match=match) as raised:
            await call()
        assert time.monotonic() - begun < seconds, name
        assert SECRET not in repr(raised.value) + repr(store), name


async def test_a_wrong_key(s3_bucket: S3Bucket) -> None:
    """A key or secret that is refused is named as the cause."""
    for change in ({"secret_key": SECRET}, {"access_key": "nobody"}):
        store = s3_bucket.open(**change)
        await refuse_everything(store, "PORTVAULT_S3_ACCESS_KEY")
        await store.close()


async def test_a_missing_bucket(s3_bucket: S3Bucket) -> None:
    """A bucket that does not exist is not taken for an empty one."""
    store = s3_bucket.open(bucket="no-such-bucket")
    await refuse_everything(store, "create it")
    await store.close()


async def test_nobody_listens(s3_bucket: S3Bucket) -> None:
    """A server that is down is said to be out of reach."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = s3_bucket.open(host=f"127.0.0.1:{free.getsockname()[1]}")
    await refuse_everything(store, "cannot be reached")
    await store.close()


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[str]:
    """Serve raw connections; gives host and port."""
    connections: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await handle(reader, writer)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*connections)
        # Transports end in the next turns of the loop.
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("reads", [True, False])
async def test_a_server_that_never_answers(s3_bucket: S3Bucket, reads: bool) -> None:
    """Whether it reads what is sent or not, a silent server is given up after the time limit."""
    given_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads:
            while await reader.read(65536):
                pass
        else:
            await given_up.wait()
        writer.close()

    async with listening(silent) as host:
        store = s3_bucket.open(host=host, timeout_seconds=0.5)
        with pytest.raises(ObjectStoreUnavailableError):
            async with asyncio.timeout(5):
                await store.put("documents/a", blocks(1600), size_bytes=1600 * 65536)
        given_up.set()
        if reads:
            await refuse_everything(store, "cannot be reached")
        await store.close()


async def test_a_slow_source_is_not_the_servers_fault(s3_bucket: S3Bucket) -> None:
    """The time limit is for the server: a client that sends slowly may take longer than that."""

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.4)
            yield b"x"

    store = s3_bucket.open(timeout_seconds=0.3)
    for size in (4, None):
        await store.put("documents/a", slow(), size_bytes=size)
        assert [item.size_bytes async for item in store.list()] == [4]
    await store.close()


class CuttingProxy:
    """Between client and gateway; cuts the connection after so many bytes one way."""

    def __init__(self, endpoint: str) -> None:
        self._host, _, self._port = endpoint.partition(":")
        self.up_bytes_max = self.down_bytes_max = 1 << 40

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both ways until one side ends or the limit is reached."""
        there, out = await asyncio.open_connection(self._host, int(self._port))
        carried = [
            asyncio.create_task(self._carry(reader, out, self.up_bytes_max)),
            asyncio.create_task(self._carry(there, writer, self.down_bytes_max)),
        ]
        await asyncio.wait(carried, return_when=asyncio.FIRST_COMPLETED)
        for task in carried:
            task.cancel()
        await asyncio.wait(carried)
        for end in (writer, out):
            end.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, left: int
    ) -> None:
        with suppress(ConnectionError):
            while left and (data := await source.read(min(65536, left))):
                left -= len(data)
                sink.write(data)
                await sink.drain()


async def test_a_connection_cut_while_reading(s3_bucket: S3Bucket) -> None:
    """What was read before the cut is right, and the end is an error, never a short object."""
    content = random.Random(5).randbytes(4 * MIB)

    async def whole() -> AsyncIterator[bytes]:
        yield content

    proxy = CuttingProxy(s3_bucket.ceph.endpoint)
    async with listening(proxy.handle) as host:
        store = s3_bucket.open(host=host, timeout_seconds=2)
        await store.put("documents/a", whole(), size_bytes=len(content))
        for cut in (0, 100, MIB, 4 * MIB):
            await store.close()
            store = s3_bucket.open(host=host, timeout_seconds=2)
            proxy.down_bytes_max = cut
            read = b""
            with pytest.raises(ObjectStoreUnavailableError):
                async with store.get("documents/a") as chunks:
                    async for chunk in chunks:
                        read += chunk
            assert content.startswith(read)
            assert len(read) < len(content)
        await store.close()


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("cut", [0, 100, 2 * MIB, 7 * MIB])
async def test_a_connection_cut_while_writing(s3_bucket: S3Bucket, cut: int, known: bool) -> None:
    """An upload whose connection is cut raises, and nothing is to be seen of it."""
    proxy = CuttingProxy(s3_bucket.ceph.endpoint)
    proxy.up_bytes_max = cut
    async with listening(proxy.handle) as host:
        store = s3_bucket.open(host=host, timeout_seconds=2)
        with pytest.raises(ObjectStoreUnavailableError):
            await store.put("documents/a", blocks(192), size_bytes=12 * MIB if known else None)
        await store.close()
    assert s3_bucket.everything() == []


async def test_purge_takes_what_a_kill_left_in_parts(s3_bucket: S3Bucket) -> None:
    """An upload in parts that nobody will end is aborted when its name is purged."""
    s3_bucket.client._create_multipart_upload(s3_bucket.name, "documents/a", {})
    s3_bucket.client._create_multipart_upload(s3_bucket.name, "documents/ab", {})
    store = s3_bucket.open()
    assert await store.purge("documents/a") == 0
    assert s3_bucket.everything() == ["documents/ab"]
    await store.close()


async def test_purge_takes_more_uploads_than_one_page_lists(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every upload of the name is aborted, however many pages list them; others stay."""
    monkeypatch.setattr(s3_upload, "LISTED_MAX", 2)
    names = ["documents/a", "documents/a-b", "documents/ab"]
    for name in ["documents/a"] * 5 + names[1:] * 2:
        s3_bucket.client._create_multipart_upload(s3_bucket.name, name, {})
    store = s3_bucket.open()
    assert await store.purge("documents/a") == 0
    assert sorted(s3_bucket.everything()) == sorted(names[1:] * 2)
    await store.close()


class PausingProxy(CuttingProxy):
    """Does something before the first DELETE arrives."""

    def __init__(self, endpoint: str, step: Callable[[], object]) -> None:
        super().__init__(endpoint)
        self.steps = [step]

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, left: int
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(min(65536, left)):
                if data.startswith(b"DELETE ") and self.steps:
                    await asyncio.to_thread(self.steps.pop())
                sink.write(data)
                await sink.drain()


async def purged_meanwhile(bucket: S3Bucket, step: Callable[[], object]) -> int:
    """Purge while somebody does something before the first DELETE arrives; returns the answer."""
    proxy = PausingProxy(bucket.ceph.endpoint, step)
    async with listening(proxy.handle) as host:
        store = bucket.open(host=host)
        try:
            removed = await store.purge("documents/a")
        finally:
            await store.close()
    assert proxy.steps == []
    return removed


async def test_an_upload_that_ends_during_a_purge_is_purged(versioned_bucket: S3Bucket) -> None:
    """What an upload has become before it could be aborted goes with the versions."""
    client, name = versioned_bucket.client, versioned_bucket.name
    upload = client._create_multipart_upload(name, "documents/a", {})
    part = Part(1, client._upload_part(name, "documents/a", b"x", None, upload, 1))

    def end() -> None:
        client._complete_multipart_upload(name, "documents/a", upload, [part])

    assert await purged_meanwhile(versioned_bucket, end) == 1
    assert versioned_bucket.everything() == []


async def test_an_upload_that_somebody_else_aborted(s3_bucket: S3Bucket) -> None:
    """A listed upload that is gone when it is to be aborted is no failure."""
    client, name = s3_bucket.client, s3_bucket.name
    upload = client._create_multipart_upload(name, "documents/a", {})

    def abort() -> None:
        client._abort_multipart_upload(name, "documents/a", upload)

    assert await purged_meanwhile(s3_bucket, abort) == 0
    assert s3_bucket.everything() == []


def answering(body: bytes, status: str = "200 OK") -> Handle:
    """Answer every request on a connection with this body."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(head + body)
                await writer.drain()
        writer.close()

    return handle


LISTED = "<ListMultipartUploadsResult>{}</ListMultipartUploadsResult>"


@pytest.mark.parametrize(
    "body, match",
    [
        (b"", "not the XML of S3"),
        (b"<ListMultipartUploadsResult>", "not the XML of S3"),
        (b"\xff<ListMultipartUploadsResult/>", "not the XML of S3"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><ListMultipartUploadsResult/>', "has a declaration"),
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>'.encode("utf-16"), "not the XML"),
        (b"<ListBucketResult/>", "instead of ListMultipartUploadsResult"),
        (LISTED.format("<Upload><Key>documents/a</Key></Upload>").encode(), "without its name or"),
        (LISTED.format("<IsTruncated>true</IsTruncated>").encode(), "without an end"),
        (b"<ListMultipartUploadsResult/>" + b" " * 65536, "cannot be reached"),
    ],
)
async def test_a_list_of_uploads_that_says_nothing(
    s3_bucket: S3Bucket, body: bytes, match: str
) -> None:
    """An answer that does not list uploads is a failure, and not taken for an empty list."""
    async with listening(answering(body)) as host:
        store = s3_bucket.open(host=host, timeout_seconds=5)
        with pytest.raises(ObjectStoreUnavailableError, match=match):
            await store.purge("documents/a")
        await store.close()


async def test_purge_takes_delete_markers(versioned_bucket: S3Bucket) -> None:
    """A marker that another tool made counts and goes like a version."""
    store = versioned_bucket.open()
    await store.put("documents/a", blocks(1), size_bytes=None)
    versioned_bucket.client.remove_object(versioned_bucket.name, "documents/a")
    assert [item async for item in store.list()] == []
    assert await store.purge("documents/a") == 2
    assert versioned_bucket.everything() == []
    await store.close()


async def test_https_wants_a_certificate(s3_bucket: S3Bucket) -> None:
    """Over s3+https a server that speaks no TLS is not talked to."""
    from vault.adapters.objects import open_store

    store = open_store(
        f"s3+https://{s3_bucket.ceph.endpoint}/{s3_bucket.name}",
        access_key="k",
        secret_key=SECRET,
        region="us-east-1",
        timeout_seconds=2,
    )
    await refuse_everything(store, "cannot be reached")
    await store.close()


async def test_cancelled_uploads_leave_no_connection(s3_bucket: S3Bucket) -> None:
    """Wherever uploads are cancelled, every connection that stays is one to be used again."""

    async def busy() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield bytes(1024)

    store = s3_bucket.open()
    assert isinstance(store, S3Store)
    client = store._requests._client
    for milliseconds in range(20):
        put = asyncio.create_task(store.put("documents/a", busy(), size_bytes=1 << 40))
        await asyncio.sleep(milliseconds / 1000)
        put.cancel()
        await asyncio.wait([put])
        assert client._wires == set(client._idle)
    assert s3_bucket.everything() == []
    await store.close()
