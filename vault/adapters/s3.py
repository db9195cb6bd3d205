"""
Objects in an S3 bucket, with or without versions.

Bytes travel in `s3_requests` and `s3_upload`, and so do the requests about uploads in parts.
Listing and removing versions is left to the public methods of the `minio` client, which blocks: it
runs in a few threads, and every call has a time limit.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import islice
from typing import TypeVar

import urllib3
from minio import Minio
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from vault.adapters.object_names import checked_name, write_and_read_back
from vault.adapters.process import running_threads
from vault.adapters.s3_requests import Bucket, SignedRequests, named_region
from vault.adapters.s3_upload import Uploads
from vault.context import StoredObject
from vault.errors import ObjectStoreUnavailableError

THREADS = 8
BATCH = 1000
#: Versions are removed a batch at a time; a server that keeps listing them is not asked for ever.
ROUNDS = 100

T = TypeVar("T")


@cache
def _trust() -> ssl.SSLContext:
    """Return how servers prove who they are: the system's authorities, which are read once."""
    return ssl.create_default_context()


class S3Store:
    """A bucket; the key it is opened with may read, write, list and delete in it."""

    def __init__(self, place: Bucket, *, timeout_seconds: float) -> None:
        self._place = place
        self._seconds = timeout_seconds
        self._requests = SignedRequests(place, timeout_seconds=timeout_seconds)
        self._uploads = Uploads(self._requests, timeout_seconds=timeout_seconds)
        self._threads = running_threads(THREADS, "s3")
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds),
            retries=urllib3.Retry(total=1, redirect=0, allowed_methods=None),
            maxsize=THREADS,
            ssl_context=_trust(),
        )
        self._client = Minio(
            place.host,
            access_key=place.access_key,
            secret_key=place.secret_key,
            secure=place.secure,
            region=place.region,
            http_client=self._http,
        )

    def __repr__(self) -> str:
        return f"S3Store({self._place})"

    def __str__(self) -> str:
        return str(self._place)

    async def put(self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None) -> None:
        """Store the chunks under `name`; see `ObjectStore`."""
        await self._uploads.put(checked_name(name), chunks, size_bytes)

    @asynccontextmanager
    async def get(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the object for reading from `offset`; see `ObjectStore`."""
        headers = {}
        if offset or length is not None:
            # A range cannot be empty, so one byte is asked for where none is wanted.
            last = "" if length is None else offset + max(length, 1) - 1
            headers["Range"] = f"bytes={offset}-{last}"
        exchange = await self._requests.send("GET", checked_name(name), headers=headers)
        try:
            status = await self._requests.answered(exchange)
            if status == 416 or (status == 206 and length == 0):
                yield _nothing()
            elif status == (206 if headers else 200):
                yield self._requests.read(exchange)
            else:
                raise await self._requests.refused(exchange)
        finally:
            exchange.end()

    async def purge(self, name: str) -> int:
        """Remove every version and delete marker, and uploads in parts that a kill left behind."""
        checked_name(name)
        # The uploads first: what one of them becomes meanwhile is a version by then.
        await self._uploads.abort_all(name)
        return await self._run(lambda: self._purge(name))

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """Current objects under the prefix, ascending by name; see `ObjectStore`."""
        found = self._client.list_objects(
            self._place.bucket, prefix=prefix, recursive=True, start_after=after or None
        )
        while batch := await self._run(lambda: list(islice(found, BATCH))):
            for item in batch:
                yield _stored(item)

    async def check(self) -> None:
        """Raise when the bucket cannot be written and read, with what to do about it."""
        await write_and_read_back(self)

    async def close(self) -> None:
        """Let go of connections; calls that are under way end within their time limit."""
        await self._requests.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._http.clear()

    async def _run(self, step: Callable[[], T]) -> T:
        """Run a blocking call in a thread, within the time limit."""
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, step)
        except S3Error as error:
            answer = error.response
            region = named_region(answer.data or b"")
            raise self._place.refusal(error.code, answer.status, region=region) from error
        except (MinioException, HTTPError, OSError, ValueError) as error:
            raise self._requests.lost(error) from error

    def _purge(self, name: str) -> int:
        removed = 0
        for _ in range(ROUNDS):
            versions = self._versions(name)
            if not versions:
                return removed
            failed = list(self._client.remove_objects(self._place.bucket, versions))
            if failed:
                raise ObjectStoreUnavailableError(
                    f"{self._place} keeps {len(failed)} of {len(versions)} versions of {name} "
                    f"({failed[0].code}); check that the key may delete versions and that no "
                    "object lock forbids it"
                )
            removed += len(versions)
        raise ObjectStoreUnavailableError(f"{self._place} still lists {name} after it was removed")

    def _versions(self, name: str) -> Sequence[DeleteObject]:
        """Return versions and delete markers of exactly this name, as many as go in one request."""
        found = self._client.list_objects(
            self._place.bucket, prefix=name, recursive=True, include_version=True
        )
        # To the end: in a page of the answer, delete markers come after all versions.
        versions = (item.version_id for item in found if item.object_name == name)
        return [DeleteObject(name, version) for version in islice(versions, BATCH)]


def _stored(item: Object) -> StoredObject:
    if item.object_name is None or item.size is None or item.last_modified is None:
        raise ObjectStoreUnavailableError("the object store lists an object without its size")
    return StoredObject(item.object_name, item.size, item.last_modified)


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk
