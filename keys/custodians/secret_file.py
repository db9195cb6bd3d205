"""A secret that a person wrote into a file: a PIN or a passphrase."""

import os
import stat
from pathlib import Path

from keys.errors import CustodianConfigurationError
from keys.secret_text import ExposedError, check_owner_only

SECRET_BYTES_MAX = 4096


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
            data = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise CustodianConfigurationError(
            f"the {what} cannot be read: {path}: {error.strerror}"
        ) from None
    try:
        secret = data.decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(data) > SECRET_BYTES_MAX:
        raise CustodianConfigurationError(f"{path} must hold the {what}, as one line of UTF-8")
    return secret
