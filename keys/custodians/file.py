"""
Root keys as files in one directory: the default, and good enough where the disk can be trusted.

A key is `REGION-GENERATION.key`, 0600, in a directory that only its owner may enter. Destroying
overwrites and unlinks the file; what that is worth depends on the disk, which this custodian cannot
know, so its level is 0.
"""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from keys import wrap
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    KeyDestroyedError,
)
from keys.private_file import is_private, sync_directory, write_private

_FILE = re.compile(r"([a-z]+)-([0-9]+)\.key")
P = ParamSpec("P")
T = TypeVar("T")


class FileCustodian:
    """Root keys in a directory on a local disk."""

    destroy_level = 0
    destroy_promise = (
        "The key file was overwritten and unlinked; on flash, on a copy-on-write filesystem or "
        "where snapshots or backups of the directory exist, a copy may remain."
    )

    def __init__(self, place: str) -> None:
        self._directory = Path(place)
        if not self._directory.is_absolute():
            raise CustodianConfigurationError("write the custodian as file:/absolute/directory")

    @property
    def name(self) -> str:
        """Return the address."""
        return f"file:{self._directory}"

    async def create(self, region: str, generation: int) -> None:
        """Make the key durably; refuses a number at or below one that was destroyed."""
        await _in_thread(self._create, region, generation)

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Encrypt a key under the generation."""
        root = await _in_thread(self._read, region, generation)
        return wrap.wrap(root, key, context)

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt what `wrap` made."""
        root = await _in_thread(self._read, region, generation)
        return wrap.unwrap(root, wrapped, context)

    async def destroy(self, region: str, generation: int) -> None:
        """Remember the number as destroyed, then overwrite and unlink the key."""
        await _in_thread(self._destroy, region, generation)

    async def generations(self, region: str) -> list[int]:
        """Return the living generations."""
        return await _in_thread(self._generations, region)

    async def check(self) -> None:
        """Make the directory where it is missing; raise when others may enter it."""
        await _in_thread(self._check)

    async def close(self) -> None:
        """Hold nothing."""

    def _check(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others(self._directory, self._directory.stat(), "700")
        for path in self._directory.glob("*.key"):
            _refuse_others(path, path.stat(), "600")
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            raise CustodianConfigurationError(f"{self._directory} must belong to this user")

    def _path(self, region: str, generation: int) -> Path:
        return self._directory / f"{region}-{generation}.key"

    def _mark(self, region: str) -> Path:
        return self._directory / f"{region}.destroyed"

    def _read(self, region: str, generation: int) -> bytes:
        path = self._path(region, generation)
        try:
            with path.open("rb") as file:
                _refuse_others(path, os.fstat(file.fileno()), "600")
                root = file.read(wrap.KEY_BYTES + 1)
        except FileNotFoundError:
            if not self._directory.is_dir():
                raise CustodianUnavailableError(f"{self._directory} is not there") from None
            raise KeyDestroyedError from None
        if len(root) != wrap.KEY_BYTES or root == wrap.EMPTY:
            raise KeyDestroyedError
        return root

    def _create(self, region: str, generation: int) -> None:
        path = self._path(region, generation)
        if path.exists():
            return
        if generation <= self._last_destroyed(region):
            raise KeyDestroyedError(f"generation {generation} of {region} was destroyed")
        write_private(path, wrap.new_key(), replace=False)

    def _destroy(self, region: str, generation: int) -> None:
        # The mark is first: a crash after it leaves a key that is destroyed again, not made anew.
        if generation > self._last_destroyed(region):
            write_private(self._mark(region), str(generation).encode(), replace=True)
        path = self._path(region, generation)
        try:
            with path.open("r+b") as file:
                file.write(os.urandom(wrap.KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        path.unlink(missing_ok=True)
        sync_directory(self._directory)

    def _last_destroyed(self, region: str) -> int:
        try:
            return int(self._mark(region).read_bytes())
        except FileNotFoundError:
            return 0
        except ValueError:
            raise CustodianConfigurationError(f"{self._mark(region)} is damaged") from None

    def _generations(self, region: str) -> list[int]:
        found = (_FILE.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(match[2]) for match in found if match and match[1] == region)


def _refuse_others(path: Path, status: os.stat_result, mode: str) -> None:
    if not is_private(status):
        raise CustodianConfigurationError(
            f"{path} holds root keys and others may read it: chmod {mode} {path}"
        )


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except OSError as error:
        raise CustodianUnavailableError(
            f"the key directory cannot be used: {error.strerror}"
        ) from error
