"""
One process at a time serves a home: an flock that the kernel lets go of when the holder dies.

The file names the holder for people; the lock itself is what counts. It says nothing across
machines, and a network file system may not keep it.
"""

import fcntl
import os
from pathlib import Path

from vault.errors import ConfigurationError


class HomeLock:
    """`<home>/lock`, and the shared lock of those who use what the holder runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._served: int | None = None
        self._used: int | None = None

    def holder(self) -> int | None:
        """Return the pid that the file names; None when it names nobody."""
        try:
            return int((self._home / "lock").read_text())
        except (OSError, ValueError):
            return None

    def acquire(self) -> None:
        """Become the one who serves; raises `ConfigurationError` that names who does already."""
        if not self.try_acquire():
            raise ConfigurationError(
                f"{self._home} is already served by process {self.holder() or 'unknown'}; "
                "stop that one, or give this one its own PORTVAULT_HOME"
            )

    def try_acquire(self) -> bool:
        """Become the one who serves unless somebody is."""
        descriptor = _open(self._home / "lock")
        if not _lock(descriptor, fcntl.LOCK_EX):
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._served = descriptor
        return True

    def try_use(self, *, alone: bool = False) -> bool:
        """Mark what the holder runs as in use; `alone` is for the holder who wants to stop it."""
        descriptor = _open(self._home / "lock.used")
        if not _lock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            return False
        self._used = descriptor
        return True

    def release(self) -> None:
        """Let go of both."""
        if self._served is not None:
            os.ftruncate(self._served, 0)
            os.close(self._served)
        self.release_use()
        self._served = None

    def release_use(self) -> None:
        """Say that this process no longer uses it."""
        if self._used is not None:
            os.close(self._used)
        self._used = None


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be opened ({error.strerror}); run as the owner of {path.parent}, "
            "or set PORTVAULT_HOME to a directory of your own"
        ) from error


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
