"""A file that is being written, out of sight until it is whole; and what killed writers leave."""

import fcntl
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePath

from vault.adapters.directory_root import DIRECTORY_FLAGS, DirectoryRoot

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
