"""
Small objects of the region's bucket: tiles, and signed notes, of which the largest size's counts.

A note has its size in its name. A process that was paused, and lost its turn to another meanwhile,
so puts its older note beside the newer one and never over it.
"""

from collections.abc import AsyncIterator

from keys.errors import IntegrityError
from vault.context import ObjectStore
from vault.domain.tiles import WIDTH, Tile, cut
from vault.errors import ObjectMissingError, ObjectStoreUnavailableError

PREFIX = "log/"
#: Checkpoints of the log, and statements of how far it was trimmed.
CHECKPOINT, MINIMUM = f"{PREFIX}checkpoint", f"{PREFIX}minimum"
#: Longer than any tile or bundle can be.
OBJECT_BYTES_MAX = 32 * 1024 * 1024
ATTEMPTS = 5


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
        names = [item.name async for item in store.list(kind)]
        if not names:
            return None
        try:
            return (await fetch(store, names[-1])).decode(errors="replace")
        except ObjectMissingError:
            # One of a larger size has taken its place.
            continue
    raise ObjectStoreUnavailableError(f"{kind} changes in the bucket as fast as it is read")


async def put_note(store: ObjectStore, kind: str, size: int, note: str) -> None:
    """Put a note, then remove those of smaller sizes, which a crash between leaves behind."""
    mine = f"{kind}-{size:020d}"
    await put_object(store, mine, note.encode())
    for name in [item.name async for item in store.list(kind)]:
        if name < mine:
            await store.purge(name)
