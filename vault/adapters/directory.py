"""
Objects as files below a directory: `documents/x` is the file ROOT/documents/x.

What is written stays below ROOT/.partial until it is whole and on the disk; a rename shows it. The
writer holds a lock on its partial file, which the kernel lets go of when the process dies: whoever
finds one without a lock may remove it. The root is made by the store's first start only, and held
open (`directory_root`). When it goes away later, as a file system does that is unmounted, nothing
is made in its place and nothing is written there.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePath
from typing import TypeVar

from vault.adapters.object_names import check_size, checked_name, write_and_read_back
from vault.adapters.process import running_threads
from vault.context import STORE_IDENTITY, StoredObject
from vault.errors import ConfigurationError, ObjectMissingError, ObjectStoreUnavailableError

# ---- The root of a directory store, which is held open: whatever is mounted over it later is not
# it.
#
# The path is looked at before each step. Where it does not lead to the directory that is held,
# only a directory with the same identity file is taken up in its place, as a disk is that was
# mounted again.

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_IDENTITY_BYTES_MAX = 4096


class DirectoryRoot:
    """
    The store's own directory, made where it is missing and `make` says so.

    Every method may raise `OSError`; a store that is not where it was is `ESTALE`, never
    `FileNotFoundError`, which would say that an object is missing.
    """

    def __init__(self, path: Path, *, make: bool) -> None:
        self.path = path
        if make:
            _make_private(path)
        self._held = os.open(path, DIRECTORY_FLAGS)
        self._identity = _identity(self._held)

    def descriptor(self) -> int:
        """Return the descriptor of the store's directory, which is what lies at its path now."""
        try:
            if not os.path.samestat(self.path.stat(), os.fstat(self._held)):
                self._take_up()
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.ESTALE, "the directory is gone; is its disk mounted?") from None
        return self._held

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._held)

    def _take_up(self) -> None:
        """Hold what lies at the path instead, if it says that it is the same store."""
        if self._identity is None:
            with suppress(OSError):
                self._identity = _identity(self._held)
        found = os.open(self.path, DIRECTORY_FLAGS)
        try:
            if self._identity is None or _identity(found) != self._identity:
                raise OSError(
                    errno.ESTALE, "what lies there is not this store; is its disk mounted?"
                )
            os.dup2(found, self._held, inheritable=False)
        finally:
            os.close(found)


def _identity(directory: int) -> bytes | None:
    """Return what the identity file of a directory holds; None where there is none."""
    try:
        file = os.open(STORE_IDENTITY, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        return os.read(file, _IDENTITY_BYTES_MAX)
    finally:
        os.close(file)


def _make_private(directory: Path) -> None:
    """Make a directory and those above it that are missing, each for this user only."""
    for missing in reversed(
        [path for path in (directory, *directory.parents) if not path.exists()]
    ):
        missing.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


# ---- A file that is being written, out of sight until it is whole; and what killed writers leave.

FOLDER = ".partial"
SUFFIX = ".partial"


class Partial:
    """One object on its way; its steps block, and only one of them runs at a time."""

    def __init__(self, root: DirectoryRoot, name: str) -> None:
        self._root = root
        #: Of the directory that was the store's when the first byte came.
        self._base: int | None = None
        self._target = PurePath(name)
        self._name = _new_name()
        self._folder: int | None = None
        self._file: int | None = None
        self._shown = False

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append the chunks."""
        file = self._open()
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(file, view) :]

    def finish(self, chunks: Sequence[bytes]) -> None:
        """Append the last chunks, and show the whole under its name; durable when this returns."""
        self.write(chunks)
        os.fsync(self._open())
        try:
            self._rename()
        except FileNotFoundError:
            self._make_parents()
            self._rename()
        sync_directory(self._target.parent, self._base)
        # What was written is in the store only where the store still lies at its path.
        self._root.descriptor()

    def drop(self) -> None:
        """Remove what was written, even when it was shown already, as far as the disk lets."""
        with suppress(OSError):
            if self._shown:
                os.unlink(self._target, dir_fd=self._base)
        if self._folder is not None and not self._shown:
            # By the open folder: that finds the file wherever the root was moved to.
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        for descriptor in (self._file, self._folder, self._base):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._folder = self._base = None

    def _open(self) -> int:
        """Return the descriptor of the file, which is made on first use."""
        if self._file is None:
            self._file = self._create()
        return self._file

    def _create(self) -> int:
        self._base = os.dup(self._root.descriptor())
        with suppress(FileExistsError):
            os.mkdir(FOLDER, mode=0o700, dir_fd=self._base)
        self._folder = os.open(FOLDER, DIRECTORY_FLAGS, dir_fd=self._base)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            made = os.open(self._name, flags, 0o600, dir_fd=self._folder)
            if _lock(made) and os.fstat(made).st_nlink:
                return made
            # A sweeper saw the file before it was locked, and takes it by its name: that is not
            # used again.
            os.close(made)
            self._name = _new_name()

    def _rename(self) -> None:
        os.rename(self._name, self._target, src_dir_fd=self._folder, dst_dir_fd=self._base)
        self._shown = True

    def _make_parents(self) -> None:
        """Make the directories between root and object, but never the root."""
        for made in reversed(self._target.parents[:-1]):
            with suppress(FileExistsError):
                os.mkdir(made, mode=0o700, dir_fd=self._base)
                sync_directory(made.parent, self._base)


def sweep(root: DirectoryRoot) -> int:
    """Remove the partial files whose writers are gone; returns how many."""
    try:
        folder = os.open(FOLDER, DIRECTORY_FLAGS, dir_fd=root.descriptor())
    except FileNotFoundError:
        return 0
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if entry.name.endswith(SUFFIX)]
        return sum(_sweep(folder, name) for name in names)
    finally:
        os.close(folder)


def _sweep(folder: int, name: str) -> bool:
    """Remove a partial file unless its writer has it locked; returns whether it was removed."""
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        if not _lock(descriptor):
            return False
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        return True
    finally:
        os.close(descriptor)


def sync_directory(directory: PurePath, base: int | None) -> None:
    """Make the names in a directory below `base` durable."""
    descriptor = os.open(directory, DIRECTORY_FLAGS, dir_fd=base)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_name() -> str:
    return secrets.token_hex(16) + SUFFIX


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---- Directory. ---------------------------------------------------------------------------------

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
