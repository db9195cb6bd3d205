"""
Objects as files below a directory: `documents/x` is the file ROOT/documents/x.

What is written stays below ROOT/.partial until it is whole and on the disk; a rename shows it. The
writer holds a lock on its partial file, which the kernel lets go of when the process dies: whoever
finds one without a lock may remove it. The root is made by the store's first start only, and held
open (`directory_root`). When it goes away later, as a file system does that is unmounted, nothing
is made in its place and nothing is written there.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePath
from typing import TypeVar

from vault.adapters.directory_partial import Partial, sweep, sync_directory
from vault.adapters.directory_root import DIRECTORY_FLAGS, DirectoryRoot
from vault.adapters.object_names import check_size, checked_name, write_and_read_back
from vault.adapters.threads import running_threads
from vault.context import StoredObject
from vault.errors import ConfigurationError, ObjectMissingError, ObjectStoreUnavailableError

#: Bytes that are gathered for one hop to a thread, and bytes of one chunk that is read.
GATHER_BYTES = 512 * 1024
READ_BYTES = 256 * 1024
LIST_BATCH = 500
THREADS = 8
#: Linux has it; elsewhere a flag that no system knows, so that each read goes to a thread.
_NOWAIT = getattr(os, "RWF_NOWAIT", 1 << 30)

T = TypeVar("T")


class DirectoryStore:
    """A bucket in a directory, for one machine; several processes may share it."""

    def __init__(self, root: Path, *, make: bool = True) -> None:
        self._path = root
        try:
            self._root = DirectoryRoot(root, make=make)
            sweep(self._root)
        except FileNotFoundError:
            raise ConfigurationError(
                f"{root}, which holds objects, is not there: is its disk mounted, and is "
                "PORTVAULT_OBJECTS right?"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"objects cannot be kept in {root}: {error.strerror}; set PORTVAULT_OBJECTS to a "
                "directory that this user may write"
            ) from error
        self._threads = running_threads(THREADS, "objects")

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self._path)!r})"

    def __str__(self) -> str:
        return str(self._path)

    async def put(self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None) -> None:
        """Store the chunks under `name`; see `ObjectStore`."""
        partial = Partial(self._root, checked_name(name))
        gathered: list[bytes] = []
        waiting = total = 0
        try:
            async for chunk in chunks:
                gathered.append(chunk)
                waiting += len(chunk)
                total += len(chunk)
                if waiting >= GATHER_BYTES:
                    await self._run(partial.write, gathered)
                    gathered, waiting = [], 0
            check_size(total, size_bytes)
            await self._run(partial.finish, gathered)
        except BaseException:
            # No step of the partial file runs any more: `_run` waits for it even when cancelled.
            partial.drop()
            raise
        finally:
            partial.close()

    @asynccontextmanager
    async def get(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the object for reading from `offset`; see `ObjectStore`."""
        # Not in a thread: a task that is cancelled meanwhile would lose the descriptor.
        descriptor = self._attempt(self._open, checked_name(name))
        try:
            end = os.fstat(descriptor).st_size
            if length is not None:
                end = min(end, offset + length)
            yield self._read(descriptor, offset, end)
        finally:
            os.close(descriptor)

    async def purge(self, name: str) -> int:
        """Remove the object and what killed writers left; returns 1, or 0 when there was none."""
        return await self._run(self._purge, checked_name(name))

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """Current objects under the prefix, ascending by name; see `ObjectStore`."""
        found = self._walk("", prefix, after)
        while batch := await self._run(lambda: list(islice(found, LIST_BATCH))):
            for item in batch:
                yield item

    async def check(self) -> None:
        """Raise when the directory cannot be written and read."""
        await self._run(sweep, self._root)
        await write_and_read_back(self)

    async def close(self) -> None:
        """Let go of the threads, once they are done, and of the directory."""
        await asyncio.to_thread(self._threads.shutdown)
        self._root.close()

    async def _run(self, step: Callable[..., T], *arguments: object) -> T:
        """Run a blocking step in a thread, to its end even when this task is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._attempt(step, *arguments)
        )
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                # Cancelled again or not: what the step works on must not be taken from under it.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            # Nobody wants its failure any more; asking for it stops asyncio's complaint.
            future.exception()
            raise

    def _attempt(self, step: Callable[..., T], *arguments: object) -> T:
        with self._unavailable():
            return step(*arguments)

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ObjectStoreUnavailableError(
                f"the objects in {self._path} cannot be reached: {error.strerror or error}; "
                "check that the directory is there, may be written and has room"
            ) from error

    def _open(self, name: str) -> int:
        base, flags = self._root.descriptor(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(name, flags, dir_fd=base)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissingError from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectMissingError
        return descriptor

    async def _read(self, descriptor: int, offset: int, end: int) -> AsyncIterator[bytes]:
        while offset < end:
            size = min(READ_BYTES, end - offset)
            chunk = _read_cached(descriptor, size, offset)
            if not chunk:
                chunk = await self._run(os.pread, descriptor, size, offset)
            if not chunk:
                return
            offset += len(chunk)
            yield chunk

    def _purge(self, name: str) -> int:
        sweep(self._root)
        base = self._root.descriptor()
        try:
            os.unlink(name, dir_fd=base)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return 0
        sync_directory(PurePath(name).parent, base)
        return 1

    def _walk(self, directory: str, prefix: str, after: str) -> Iterator[StoredObject]:
        """Yield the objects below; a directory sorts as its name and a slash, as its files do."""
        try:
            names = self._entries(directory)
        except FileNotFoundError:
            return
        for name in sorted(names):
            if name.endswith("/"):
                if name.startswith(prefix) or prefix.startswith(name):
                    yield from self._walk(name, prefix, after)
            elif name.startswith(prefix) and name > after:
                # One that was purged meanwhile is no current object any more.
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=self._root.descriptor())
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield StoredObject(name, status.st_size, modified)

    def _entries(self, directory: str) -> set[str]:
        """Return what lies in a directory of the store, by its whole name; directories with `/`."""
        opened = os.open(directory or ".", DIRECTORY_FLAGS, dir_fd=self._root.descriptor())
        try:
            with os.scandir(opened) as found:
                return {
                    directory + entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "")
                    for entry in found
                    if not entry.name.startswith(".")
                }
        finally:
            os.close(opened)


def _read_cached(descriptor: int, size: int, offset: int) -> bytes:
    """Read what the system has in memory, which never waits for the disk; nothing otherwise."""
    chunk = bytearray(size)
    try:
        read = os.preadv(descriptor, [chunk], offset, _NOWAIT)
    except OSError:
        # Not in memory, not known to this file system, or broken: a read that may wait says which.
        return b""
    return bytes(memoryview(chunk)[:read])
