"""Whether a file that holds a secret is one that nobody else reads or writes."""

import os
import stat
from pathlib import Path

SECRET_BYTES_MAX = 64 * 1024


class ExposedError(Exception):
    """Others may get at a secret, as the message says, with what to do."""


def check_owner_only(path: Path, status: os.stat_result) -> None:
    """
    Raise `ExposedError` unless a file is its user's, or root's, and nobody else may get at it.

    What another account owns it can change, whatever its mode says.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ExposedError(f"{path} must be a file that holds a secret")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ExposedError(f"others may read {path}, which holds a secret: chmod 600 {path}")
    if status.st_uid not in {os.geteuid(), 0}:
        raise ExposedError(
            f"{path} holds a secret and belongs to another account: chown {os.geteuid()} {path}"
        )


def read_owner_only(path: Path) -> str:
    """
    Return the text of a file that holds a secret, without space around it.

    Raises `ExposedError` where others may get at it, OSError or ValueError where it cannot be read.
    """
    with path.open("rb") as file:
        check_owner_only(path, os.fstat(file.fileno()))
        data = file.read(SECRET_BYTES_MAX + 1)
    if len(data) > SECRET_BYTES_MAX:
        raise ValueError("it is too large for a secret")
    return data.decode().strip()
