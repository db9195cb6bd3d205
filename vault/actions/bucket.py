"""
What is done alike with a region's bucket: small objects, signed notes, and removing many objects.

A note has its size in its name, and that of the largest size counts. A process that was paused, and
lost its turn to another meanwhile, so puts its older note beside the newer one and never over it.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable

from keys.errors import IntegrityError
from vault.context import ObjectStore
from vault.domain.tiles import WIDTH, Tile, cut
from vault.errors import ObjectMissingError, ObjectStoreUnavailableError, VaultError

PREFIX = "log/"
#: Checkpoints of the log, and statements of how far it was trimmed.
CHECKPOINT, MINIMUM = f"{PREFIX}checkpoint", f"{PREFIX}minimum"
#: Longer than any tile or bundle can be.
OBJECT_BYTES_MAX = 32 * 1024 * 1024
ATTEMPTS = 5
#: Objects that are removed at the same time, and after how long no further one is begun: where a
#: store answers slowly or not at all, others must not wait for all that there is.
PURGED_TOGETHER, PURGE_SECONDS = 8, 30.0


async def fetch(store: ObjectStore, name: str) -> bytes:
    """Return a small object; raises `ObjectMissingError`, `IntegrityError` when it is not small."""
    data = bytearray()
    async with store.get(name) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > OBJECT_BYTES_MAX:
                raise IntegrityError(f"{name} in the bucket is too long")
    return bytes(data)


async def fetch_tile(store: ObjectStore, tile: Tile) -> bytes:
    """
    Return a tile of the log; one that was partial and became whole is cut to its width.

    So whoever holds an earlier checkpoint still finds what it covers, also where a publisher died
    between the whole tile and its checkpoint. Raises `ObjectMissingError`, `IntegrityError`.
    """
    try:
        return await fetch(store, PREFIX + tile.path)
    except ObjectMissingError:
        if tile.width == WIDTH:
            raise
    whole = Tile(tile.level, tile.index, WIDTH)
    try:
        return cut(tile, await fetch(store, PREFIX + whole.path))
    except ValueError:
        raise IntegrityError(f"{whole.path} of the published log is damaged") from None


async def put_object(store: ObjectStore, name: str, data: bytes) -> None:
    """Write a small object, whole or not at all."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    await store.put(name, chunks(), size_bytes=len(data))


async def newest_note(store: ObjectStore, kind: str) -> str | None:
    """Return the note of the largest size; None when there is none of the kind."""
    for _ in range(ATTEMPTS):
        names = await _notes(store, kind)
        if not names:
            return None
        try:
            return (await fetch(store, names[-1])).decode(errors="replace")
        except ObjectMissingError:
            # One of a larger size has taken its place.
            continue
    raise ObjectStoreUnavailableError(f"{kind} changes in the bucket as fast as it is read")


async def put_note(store: ObjectStore, kind: str, size: int, note: str) -> None:
    """Put a note, then remove those of smaller sizes, as far as the store lets go of them."""
    mine = f"{kind}-{size:020d}"
    await put_object(store, mine, note.encode())
    await purge_many(store, [name for name in await _notes(store, kind) if name < mine])


async def _notes(store: ObjectStore, kind: str) -> list[str]:
    """Return the names of a kind's notes, that of the largest size last, and of nothing else."""
    # Without a size: what was written before notes had one.
    note = re.compile(re.escape(kind) + r"(-\d{20})?")
    return [item.name async for item in store.list(kind) if note.fullmatch(item.name)]


async def purge_many(
    store: ObjectStore, names: Iterable[str]
) -> tuple[dict[str, int], list[VaultError]]:
    """
    Remove every version of these objects; return how many each had that is gone, and what failed.

    One that cannot be removed holds up no other. After `PURGE_SECONDS` no further one is begun.
    """
    waiting, purged, failures = iter(names), dict[str, int](), list[VaultError]()
    last = time.monotonic() + PURGE_SECONDS

    async def purge() -> None:
        for name in waiting:
            if time.monotonic() > last:
                return
            try:
                purged[name] = await store.purge(name)
            except VaultError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(PURGED_TOGETHER):
            group.create_task(purge())
    return purged, failures
