"""
The root of a directory store, which is held open: whatever is mounted over it later is not it.

The path is looked at before each step. Where it does not lead to the directory that is held, only a
directory with the same identity file is taken up in its place, as a disk is that was mounted again.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

from vault.context import STORE_IDENTITY

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
