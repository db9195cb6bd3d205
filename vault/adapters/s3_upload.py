"""
Uploads to S3: one request where the length is known or small, in parts where it is not.

The last chunk is held back until the iterator has ended well. So a body that fails, or whose length
is not what was announced, never reaches the server whole, and the server shows nothing of it. A
task that is cancelled when all was sent waits for the answer and takes the object back. Only an
answer that never comes leaves open whether the object is there; purging the name clears that.
"""

import asyncio
import html
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
)
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from vault.adapters.http_client import Exchange
from vault.adapters.object_names import check_size
from vault.adapters.s3_requests import SignedRequests, parse_answer
from vault.errors import ObjectMissingError, ObjectStoreUnavailableError, VaultError

# ---- The body of one upload: its length is kept to, and its last chunk held back until it is
# sure.


class Body:
    """Chunks for whoever sends them, which is a task of its own."""

    def __init__(self, chunks: AsyncIterable[bytes], size_bytes: int, seconds: float) -> None:
        self._chunks = aiter(chunks)
        self._size_bytes = size_bytes
        self._seconds = seconds
        self._taken = 0
        self._held: bytes | None = None
        self._stopped = False
        self._running = asyncio.Lock()
        #: Since when the server is waited for; None while the chunks are.
        self._since: float | None = asyncio.get_running_loop().time()
        #: Whether the chunks ended well and the last one was given out.
        self.complete = False
        self.failure: Exception | None = None

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        async with self._running:
            if self.complete:
                raise StopAsyncIteration
            if self._stopped:
                raise ConnectionAbortedError
            self._since = None
            try:
                chunk = self._held or await self._next()
                self._held = await self._next()
            except Exception as error:
                self.failure = error
                raise
            if self._stopped:
                # Given up while the chunk was waited for: what is given out now would be the last.
                raise ConnectionAbortedError
            self._since = asyncio.get_running_loop().time()
            self.complete = self._held is None
            return chunk or b""

    def patience_seconds(self) -> float:
        """Return how much longer the server may keep us waiting; all of it while it need not."""
        if self._since is None:
            return self._seconds
        return self._seconds - (asyncio.get_running_loop().time() - self._since)

    def abandon(self) -> bool:
        """Give out nothing more; returns whether the last chunk was given out before."""
        self._stopped = True
        return self.complete

    async def stop(self) -> None:
        """Return when nobody reads the chunks any more."""
        self._stopped = True
        async with self._running:
            return

    async def _next(self) -> bytes | None:
        """Return the next chunk that is not empty; None when they ended at the right length."""
        async for chunk in self._chunks:
            self._taken += len(chunk)
            if self._taken > self._size_bytes:
                check_size(self._taken, self._size_bytes)
            if chunk:
                return chunk
        check_size(self._taken, self._size_bytes)
        return None


# ---- S3 upload. ---------------------------------------------------------------------------------

#: The smallest part that S3 takes before the last one; one part at a time is kept in memory.
PART_BYTES = 5 * 1024 * 1024
#: An object so small is gathered first, and goes out in one piece.
SMALL_BYTES = 128 * 1024
#: Uploads in parts that are listed at once: their answer stays well below what is believed of one.
LISTED_MAX = 50
#: A server that keeps listing uploads is not asked for ever.
PAGES_MAX = 100

T = TypeVar("T")
Headers = Mapping[str, str]


class Uploads:
    """Uploads to one bucket; the time limit is for each time the server is waited for."""

    def __init__(self, requests: SignedRequests, *, timeout_seconds: float) -> None:
        self._requests = requests
        self._seconds = timeout_seconds

    async def put(self, name: str, chunks: AsyncIterable[bytes], size_bytes: int | None) -> None:
        """Store the chunks; on any failure nothing is shown and no part stays."""
        if size_bytes is not None:
            await self._put_whole(name, chunks, size_bytes)
            return
        async with aclosing(_parts(chunks)) as parts:
            first: list[bytes] = await anext(parts, [])
            if _length(first) < PART_BYTES:
                await self._put_whole(name, _iterate(first), _length(first))
            else:
                await self._put_parts(name, first, parts)

    async def abort_all(self, name: str) -> None:
        """
        Abort every upload in parts of exactly this name, whoever began it.

        Raises `ObjectStoreUnavailableError` when the server refuses, takes longer than the time
        limit, or does not come to the end of its list.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._abort_listed(name)
        except TimeoutError as error:
            raise self._requests.lost(error) from error

    async def _abort_listed(self, name: str) -> None:
        marker: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            query = {"uploads": "", "prefix": name, "max-uploads": str(LISTED_MAX), **marker}
            _, answer = await self._requests.command("GET", "", query=query)
            page = parse_answer(answer, "ListMultipartUploadsResult")
            for item in page.iterfind("{*}Upload"):
                listed, upload = item.findtext("{*}Key"), item.findtext("{*}UploadId")
                if not listed or not upload:
                    raise ObjectStoreUnavailableError(
                        "the object store lists an upload in parts without its name or id"
                    )
                # The prefix finds longer names, too.
                if listed == name:
                    # Somebody else may have aborted it since it was listed.
                    with suppress(ObjectMissingError):
                        await self._abort(name, upload)
            if page.findtext("{*}IsTruncated", "false").strip() != "true":
                return
            marker = {
                "key-marker": page.findtext("{*}NextKeyMarker", ""),
                "upload-id-marker": page.findtext("{*}NextUploadIdMarker", ""),
            }
        raise ObjectStoreUnavailableError(
            f"the object store lists uploads in parts of {name} without an end"
        )

    async def _put_whole(self, name: str, chunks: AsyncIterable[bytes], size_bytes: int) -> None:
        def undo(made: Headers) -> Awaitable[None]:
            return self._withdraw(name, made)

        if size_bytes > SMALL_BYTES:
            await self._send(name, chunks, size_bytes, {}, undo)
            return
        whole = await _gather(chunks, size_bytes)
        exchange = await self._requests.send("PUT", name, body=whole)
        try:
            await self._requests.succeeded(exchange)
        except asyncio.CancelledError:
            await self._bounded(self._take_back(name, exchange))
            raise
        finally:
            exchange.end()

    async def _put_parts(
        self, name: str, part: list[bytes] | None, parts: AsyncIterator[list[bytes]]
    ) -> None:
        begun = await self._settled(self._begin(name), lambda made: self._abort(name, made))
        tags: list[str] = []
        try:
            while part:
                query = {"partNumber": str(len(tags) + 1), "uploadId": begun}
                made = await self._send(name, _iterate(part), _length(part), query, None)
                tags.append(made.get("etag", ""))
                # Let go of it before the next one is gathered.
                part.clear()
                part = await anext(parts, None)
            await self._settled(
                self._complete(name, begun, tags), lambda made: self._withdraw(name, made)
            )
        except BaseException:
            await self._bounded(self._abort(name, begun))
            raise

    async def _send(
        self,
        name: str,
        chunks: AsyncIterable[bytes],
        size_bytes: int,
        query: Headers,
        undo: Callable[[Headers], Awaitable[None]] | None,
    ) -> Headers:
        """PUT the chunks and return the answer's headers; a failure of theirs passes unchanged."""
        body = Body(chunks, size_bytes, self._seconds)
        request = self._requests.upload(name, query, body, size_bytes)
        return await self._settled(request, undo, body)

    async def _settled(
        self,
        step: Coroutine[Any, Any, T],
        undo: Callable[[T], Awaitable[None]] | None,
        body: Body | None = None,
    ) -> T:
        """Return what the step returns; undo it when this task is cancelled too late to stop it."""
        task = asyncio.create_task(step)
        try:
            return await self._answered(task, body)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            # At once: another turn of the loop might give the last chunk out.
            sent = body is None or body.abandon()
            await self._bounded(_conclude(task, body, undo, too_late=cancelled and sent))
            if isinstance(error, TimeoutError):
                raise self._requests.lost(error) from error
            if body is not None and body.failure is not None and not cancelled:
                raise body.failure from None
            raise

    async def _answered(self, task: asyncio.Future[T], body: Body | None) -> T:
        """Return what the task returns; raises when the server keeps it waiting for too long."""
        left = self._seconds
        while left > 0 and not task.done():
            await asyncio.wait([task], timeout=left)
            left = 0.0 if body is None else body.patience_seconds()
        if not task.done():
            raise TimeoutError
        return task.result()

    async def _begin(self, name: str) -> str:
        _, answer = await self._requests.command("POST", name, query={"uploads": ""})
        upload = parse_answer(answer, "InitiateMultipartUploadResult").findtext("{*}UploadId")
        if not upload:
            raise ObjectStoreUnavailableError("the object store began an upload without an id")
        return upload

    async def _complete(self, name: str, upload: str, tags: list[str]) -> Headers:
        items = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{html.escape(tag)}</ETag></Part>"
            for number, tag in enumerate(tags, 1)
        )
        body = f"<CompleteMultipartUpload>{items}</CompleteMultipartUpload>".encode()
        headers, answer = await self._requests.command(
            "POST", name, query={"uploadId": upload}, body=body
        )
        # S3 may say 200 first and find an error after that.
        if b"<CompleteMultipartUploadResult" not in answer:
            raise ObjectStoreUnavailableError("the object store could not join the parts")
        return headers

    async def _abort(self, name: str, upload: str) -> None:
        await self._requests.command("DELETE", name, query={"uploadId": upload})

    async def _take_back(self, name: str, exchange: Exchange) -> None:
        """Wait for the answer to a PUT that nobody wants any more, and remove what it made."""
        made, _ = await self._requests.succeeded(exchange)
        await self._withdraw(name, made)

    async def _withdraw(self, name: str, made: Headers) -> None:
        """Remove the version that a request made, and no other."""
        version = made.get("x-amz-version-id")
        query = {"versionId": version} if version else {}
        await self._requests.command("DELETE", name, query=query)

    async def _bounded(self, step: Awaitable[None]) -> None:
        """Clean up within the time limit, even when cancelled meanwhile; its failure is no news."""
        task = asyncio.ensure_future(asyncio.wait_for(step, self._seconds))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        with suppress(VaultError, TimeoutError):
            task.result()
        if cancelled is not None:
            raise cancelled


async def _conclude(
    task: asyncio.Future[T],
    body: Body | None,
    undo: Callable[[T], Awaitable[None]] | None,
    *,
    too_late: bool,
) -> None:
    """Stop the request, or wait for its end when it is too late for that, and undo its work."""
    if not too_late:
        task.cancel()
    try:
        await asyncio.wait([task])
        if body is not None:
            await body.stop()
        if undo is not None and not task.cancelled() and task.exception() is None:
            await undo(task.result())
    finally:
        task.cancel()


async def _parts(chunks: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Gather the chunks into parts of exactly the part's size; only the last one is smaller."""
    part: list[bytes] = []
    room = PART_BYTES
    async for chunk in chunks:
        view = memoryview(chunk)
        while len(view) >= room:
            part.append(bytes(view[:room]))
            view = view[room:]
            yield part
            part, room = [], PART_BYTES
        if view:
            part.append(bytes(view))
            room -= len(view)
    if part:
        yield part


async def _gather(chunks: AsyncIterable[bytes], size_bytes: int) -> bytes:
    """Return the chunks in one; raises when they are not of the announced size."""
    gathered, total = list[bytes](), 0
    async for chunk in chunks:
        gathered.append(chunk)
        total += len(chunk)
        if total > size_bytes:
            break
    check_size(total, size_bytes)
    return b"".join(gathered)


async def _iterate(part: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in part:
        yield chunk


def _length(part: list[bytes]) -> int:
    return sum(map(len, part))
