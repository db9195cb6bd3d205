"""A secret in a file: written durably and in one step, readable by its owner only."""

import contextlib
import os
import stat
from pathlib import Path

OWNER_ONLY = 0o600


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """
    Write a file that appears when it is whole; durable when this returns.

    Without `replace`, a file that is there already stands, also one that another process makes at
    the same moment.
    """
    part = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            part.replace(path)
        else:
            # A link, unlike a rename, never replaces what is there.
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_private(status: os.stat_result) -> bool:
    """Whether nobody but the owner, and root, can get at what has this status."""
    return not stat.S_IMODE(status.st_mode) & 0o077
