"""
What is done alike with a region's bucket: small objects, signed notes, and removing many objects.

A note has its size in its name, and of those that verify that of the largest size counts. A process
that was paused, and lost its turn to another meanwhile, so puts its older note beside the newer one
and never over it. What does not verify, or states another size than its name, is passed over and
named: whoever may write to the bucket must not stop the vault by it.
"""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from keys.damage import PassedOver
from keys.errors import IntegrityError
from vault.context import STORE_IDENTITY, ObjectStore
from vault.domain.checkpoint import Checkpoint
from vault.domain.tiles import WIDTH, Tile, cut
from vault.errors import (
    ConfigurationError,
    ObjectMissingError,
    ObjectStoreUnavailableError,
    VaultError,
)
from vault.sql import health as health_sql
from vault.sql.connection import Pool, connection, transaction

PREFIX = "log/"
#: Checkpoints of the log, and statements of how far it was trimmed.
CHECKPOINT, MINIMUM = f"{PREFIX}checkpoint", f"{PREFIX}minimum"
#: Longer than any tile or bundle can be.
OBJECT_BYTES_MAX = 32 * 1024 * 1024
#: Longer than any note can be, and how many of the largest sizes are looked into.
NOTE_BYTES_MAX, NOTES_MAX = 64 * 1024, 10_000
ATTEMPTS = 5
#: Objects that are removed at the same time, and after how long no further one is begun: where a
#: store answers slowly or not at all, others must not wait for all that there is.
PURGED_TOGETHER, PURGE_SECONDS = 8, 30.0


async def fetch(store: ObjectStore, name: str, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
    """Return a small object; raises `ObjectMissingError`, `IntegrityError` when it is not small."""
    data = bytearray()
    async with store.get(name) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > bytes_max:
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


async def newest_note(
    store: ObjectStore,
    region: str,
    kind: str,
    verify: Callable[[str], Checkpoint],
    passed_over: PassedOver,
    *,
    required: bool,
) -> tuple[Checkpoint, str] | None:
    """
    Return what the verified note of the largest size states, and the note; None without any note.

    `verify` raises `IntegrityError`. So does this, with `required`, when there are notes and none
    of the largest `NOTES_MAX` verifies: then the key or the bucket is another one.
    """
    for _ in range(ATTEMPTS):
        names, bad = await _notes(store, kind), list[str]()
        try:
            for name in reversed(names):
                found = await _verified(store, name, kind, verify)
                if found is not None:
                    passed_over.note(region, kind, bad)
                    return found
                bad.append(name)
        except ObjectMissingError:
            # One of a larger size has taken its place.
            continue
        passed_over.note(region, kind, bad)
        if not bad or not required:
            return None
        raise IntegrityError(
            f"none of {len(bad)} objects such as {bad[0]} in the bucket of {region} was signed by "
            "this vault's key: see that bucket and signing key are the right ones; if they are, "
            f"`portvault repair --region {region}` writes anew what was published"
        )
    raise ObjectStoreUnavailableError(f"{kind} changes in the bucket as fast as it is read")


async def _verified(
    store: ObjectStore, name: str, kind: str, verify: Callable[[str], Checkpoint]
) -> tuple[Checkpoint, str] | None:
    """Return what a note states, and the note, unless it does not verify or has another's name."""
    try:
        note = (await fetch(store, name, bytes_max=NOTE_BYTES_MAX)).decode(errors="replace")
        stated = verify(note)
    except IntegrityError:
        return None
    return (stated, note) if name in {kind, note_name(kind, stated.size)} else None


def note_name(kind: str, size: int) -> str:
    """Return where a note of a size stands."""
    return f"{kind}-{size:020d}"


async def put_note(store: ObjectStore, kind: str, size: int, note: str) -> None:
    """Put a note, then remove those of smaller sizes, as far as the store lets go of them."""
    mine = note_name(kind, size)
    await put_object(store, mine, note.encode())
    await purge_many(store, [name for name in await _notes(store, kind) if name < mine])


async def _notes(store: ObjectStore, kind: str) -> list[str]:
    """Return the names of a kind's notes of the largest sizes, the largest last, nothing else."""
    # Without a size: what was written before notes had one.
    note = re.compile(re.escape(kind) + r"(-\d{20})?")
    names = deque[str](maxlen=NOTES_MAX)
    async for item in store.list(kind):
        if note.fullmatch(item.name):
            names.append(item.name)
    return list(names)


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


# ---- Stores: which store is a region's own. -----------------------------------------------------
#
# A store carries an identity object, and the database knows its id. So an empty mount point, the
# bucket of another region or of another deployment is refused, where objects would be lost in it
# or called purged.

_ID = re.compile(r"[0-9a-f]{32}")


class _DamagedIdentityError(ConfigurationError):
    """The identity object is none."""


def encode_identity(identity: str) -> bytes:
    """Return the content of the identity object."""
    return json.dumps({"id": identity, "v": 1}).encode() + b"\n"


async def stored_identity(store: ObjectStore) -> str | None:
    """
    Return the id that the store carries; None when it carries none.

    Raises `ConfigurationError` for an identity object that is damaged, and
    `ObjectStoreUnavailableError`.
    """
    try:
        found = json.loads(await fetch(store, STORE_IDENTITY))
        if found["v"] == 1 and _ID.fullmatch(found["id"]):
            return str(found["id"])
    except ObjectMissingError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError, IntegrityError):
        pass
    raise _DamagedIdentityError(
        f"{STORE_IDENTITY} in {store} is damaged or from a later release: bring it back from a copy"
    )


async def require_identity(store: ObjectStore, region: str, known: str) -> None:
    """Raise `ConfigurationError` unless the store carries the known id; it says what to write."""
    try:
        found = await stored_identity(store)
    except _DamagedIdentityError as error:
        raise ConfigurationError(
            f"{error}. If these are the objects of {region}, write {_line(known)} into it"
        ) from None
    compare_identity(store, region, known, found)


def _line(identity: str) -> str:
    return encode_identity(identity).decode().strip()


async def is_store_known(pool: Pool, region: str) -> bool:
    """Whether the database knows which store holds the region's objects."""
    async with connection(pool) as conn:
        return await health_sql.store_id(conn, region) is not None


async def require_own_store(pool: Pool, store: ObjectStore, region: str) -> None:
    """
    Raise `ConfigurationError` where the store is not the one that holds the region's objects.

    Changes nothing.
    """
    async with connection(pool) as conn:
        known = await health_sql.store_id(conn, region)
    if known is not None:
        await require_identity(store, region, known)


async def take_store(pool: Pool, store: ObjectStore, region: str, new_id: str) -> None:
    """
    Do as `require_own_store`; a store that no database knows yet becomes the region's own.

    It receives `new_id`, unless it carries an id already. A crash before the database knows the id
    leaves a store that carries one, which the next start adopts.
    """
    async with transaction(pool) as conn:
        await health_sql.lock_identity(conn, region)
        known = await health_sql.store_id(conn, region)
        if known is not None:
            await require_identity(store, region, known)
            return
        found = await stored_identity(store)
        if found is None:
            await put_object(store, STORE_IDENTITY, encode_identity(new_id))
        await health_sql.keep_store_id(conn, region, found or new_id)


def compare_identity(store: ObjectStore, region: str, known: str, found: str | None) -> None:
    """Raise `ConfigurationError` unless the id that the store carries is the known one."""
    if found == known:
        return
    what = "is another store" if found else f"carries no {STORE_IDENTITY}"
    raise ConfigurationError(
        f"{store} does not hold the objects of {region}: it {what}. Is its disk mounted, and is "
        f"PORTVAULT_OBJECTS right? If these are the objects all the same, write "
        f"{_line(known)} into {STORE_IDENTITY} there"
    )
