"""A file that is being written, out of sight until it is whole; and what killed writers leave."""

import fcntl
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = ".partial"
SUFFIX = ".partial"
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Partial:
    """One object on its way; its steps block, and only one of them runs at a time."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._target = root / name
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
        sync_directory(self._target.parent)

    def drop(self) -> None:
        """Remove what was written, even when it was shown already, as far as the disk lets."""
        with suppress(OSError):
            if self._shown:
                self._target.unlink()
        if self._folder is not None and not self._shown:
            # By the open folder: that finds the file even when the root was moved away.
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        for descriptor in (self._file, self._folder):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._folder = None

    def _open(self) -> int:
        """Return the descriptor of the file, which is made on first use."""
        if self._file is None:
            self._file = self._create()
        return self._file

    def _create(self) -> int:
        path = self._root / FOLDER
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        self._folder = os.open(path, DIRECTORY_FLAGS)
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
        # By its path, so that this fails when the root is not where it was.
        (self._root / FOLDER / self._name).rename(self._target)
        self._shown = True

    def _make_parents(self) -> None:
        """Make the directories between root and object, but never the root."""
        missing = []
        directory = self._target.parent
        while directory != self._root and not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for made in reversed(missing):
            with suppress(FileExistsError):
                made.mkdir(mode=0o700)
            sync_directory(made.parent)


def sweep(root: Path) -> int:
    """Remove the partial files whose writers are gone; returns how many."""
    swept = 0
    try:
        with os.scandir(root / FOLDER) as found:
            paths = [Path(entry.path) for entry in found if entry.name.endswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    for path in paths:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            if _lock(descriptor):
                path.unlink(missing_ok=True)
                swept += 1
        finally:
            os.close(descriptor)
    return swept


def sync_directory(directory: Path) -> None:
    """Make the names in the directory durable."""
    descriptor = os.open(directory, DIRECTORY_FLAGS)
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
