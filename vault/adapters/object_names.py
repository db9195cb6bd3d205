"""What every object store does alike: what it takes, and how it is tried out."""

import re
import secrets
from collections.abc import AsyncIterator

from vault.context import ObjectStore
from vault.errors import ObjectStoreUnavailableError

NAME_LENGTH_MAX = 512
#: No part begins with a dot, so `..` and the directory store's own files are out of reach.
_NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*")


def checked_name(name: str) -> str:
    """Return the name as it is; raises `ValueError` when no object may be called that."""
    if len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no object name: parts of a-z, 0-9, - _ and . between slashes, "
            "none of them beginning with a dot"
        )
    return name


def check_size(size_bytes: int, announced: int | None) -> None:
    """Raise `ValueError` when the chunks add up to something else than was announced."""
    if announced not in {None, size_bytes}:
        raise ValueError(f"{announced} bytes were announced for the object, {size_bytes} came")


async def write_and_read_back(store: ObjectStore) -> None:
    """Put a small object, read it and purge it; raises when it did not come back as it was."""
    name, content = f"probe-{secrets.token_hex(8)}", secrets.token_bytes(64)

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    try:
        await store.put(name, chunks(), size_bytes=len(content))
        async with store.get(name) as found:
            read = b"".join([chunk async for chunk in found])
    finally:
        await store.purge(name)
    if read != content:
        raise ObjectStoreUnavailableError(
            "the object store gave back something else than was stored in it; "
            "check that nothing else writes to it"
        )
