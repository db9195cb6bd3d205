"""Files that hold secrets: written durably in one step, and read only where nobody else can."""

import contextlib
import os
import stat
from pathlib import Path

from keys.errors import CustodianConfigurationError

# ---- A secret in a file: written durably and in one step, readable by its owner only. -----------

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


# ---- Whether a file that holds a secret is one that nobody else reads or writes. ----------------

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


# ---- A secret that a person wrote into a file: a PIN or a passphrase. ---------------------------

PASSPHRASE_BYTES_MAX = 4096


def read_secret(path: Path, what: str) -> str:
    """Return the first line; raises when the file is not there, or others may read it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CustodianConfigurationError(f"{path} must be a file that holds the {what}")
            try:
                check_owner_only(path, status)
            except ExposedError as error:
                raise CustodianConfigurationError(f"{error} (the {what})") from None
            data = file.read(PASSPHRASE_BYTES_MAX + 1)
    except OSError as error:
        raise CustodianConfigurationError(
            f"the {what} cannot be read: {path}: {error.strerror}"
        ) from None
    try:
        secret = data.decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(data) > PASSPHRASE_BYTES_MAX:
        raise CustodianConfigurationError(f"{path} must hold the {what}, as one line of UTF-8")
    return secret
