"""
Publish: put the log into the region's bucket, where no rollback of the database reaches it.

First the tiles that a checkpoint covers, then the checkpoint; so whoever finds a checkpoint finds
its tiles. A crash between leaves tiles that nobody asks for yet; the next step writes them again.
A checkpoint of a larger log counts before any other: a bucket that is ahead shows that the database
was rolled back.
"""

import logging
from collections.abc import Sequence

from keys.errors import IntegrityError, RolledBackError
from vault.actions.bucket import CHECKPOINT, PREFIX, fetch_tile, purge_many, put_note, put_object
from vault.actions.published import require_not_behind
from vault.context import ObjectStore, Vault
from vault.domain.merkle import CompactRange, covers, root_of
from vault.domain.records import canonical_bytes
from vault.domain.tiles import (
    BUNDLES,
    WIDTH,
    Tile,
    covering,
    decode_hashes,
    encode_entries,
    encode_hashes,
    partials,
)
from vault.errors import ObjectMissingError
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection, transaction

log = logging.getLogger(__name__)


async def publish_log(vault: Vault, region: str) -> int:
    """Publish the newest checkpoint of the database; returns how many records are new there."""
    async with transaction(vault.pool) as conn:
        if not await log_sql.try_publisher(conn, region):
            return 0
        signed = await log_sql.latest_checkpoint(conn, region)
        size = await published_sql.published_size(conn, region)
        if signed is None or signed.size <= size:
            return 0
        try:
            await require_not_behind(vault, conn, region)
        except RolledBackError:
            vault.keyring.refuse(region)
            raise
        await _publish_tiles(vault.stores[region], conn, region, size, signed.size)
        await put_note(vault.stores[region], CHECKPOINT, signed.size, signed.note)
        await published_sql.set_published(conn, region, signed.size)
    return signed.size - size


async def _publish_tiles(
    store: ObjectStore, conn: Connection, region: str, old: int, new: int
) -> None:
    """Write all tiles that a log of `new` records has and one of `old` has not."""
    fresh = list[bytes]()
    for tile in covering(new, 0, old):
        first = tile.index * WIDTH
        leaves = await search_sql.leaves_of(conn, region, first, first + tile.width)
        entries = [canonical_bytes(leaf.record) for leaf in leaves if leaf.record]
        if len(entries) < tile.width:
            raise IntegrityError(f"records of {region} are gone that were never published")
        await _put_tile(store, Tile(BUNDLES, tile.index, tile.width), encode_entries(entries))
        fresh += await _put_hashes(store, tile, [leaf.hash for leaf in leaves])
    level, whole = 0, await published_sql.compact_range(conn, region, old)
    while fresh:
        level, old = level + 1, old >> 8
        before = await _partial(store, level, old)
        if whole is None or not covers(whole, level, before):
            before = await _rebuilt(conn, region, level, old)
        first, hashes, fresh = old - len(before), before + fresh, []
        for tile in covering(new, level, old):
            start = tile.index * WIDTH - first
            fresh += await _put_hashes(store, tile, hashes[start : start + tile.width])


async def _partial(store: ObjectStore, level: int, size: int) -> list[bytes]:
    """Return what the last tile of a level holds already, not verified; nothing if it is lost."""
    if size % WIDTH == 0:
        return []
    last = Tile(level, size // WIDTH, size % WIDTH)
    try:
        return decode_hashes(await fetch_tile(store, last))
    except (ValueError, IntegrityError, ObjectMissingError):
        return []


async def _rebuilt(conn: Connection, region: str, level: int, size: int) -> list[bytes]:
    """Return from the database what the last tile of a level should hold."""
    log.warning("a tile of level %d in the bucket of %s was damaged and is rebuilt", level, region)
    each, hashes = WIDTH**level, list[bytes]()
    for index in range(size - size % WIDTH, size):
        grown = CompactRange()
        for first in range(index * each, (index + 1) * each, WIDTH):
            for leaf in await search_sql.leaves_of(conn, region, first, first + WIDTH):
                grown.append(leaf.hash)
        hashes.append(grown.root())
    return hashes


async def _put_hashes(store: ObjectStore, tile: Tile, hashes: Sequence[bytes]) -> list[bytes]:
    """Write a tile; returns what it adds to the level above."""
    await _put_tile(store, tile, encode_hashes(hashes))
    return [root_of(hashes)] if tile.width == WIDTH else []


async def _put_tile(store: ObjectStore, tile: Tile, data: bytes) -> None:
    await put_object(store, PREFIX + tile.path, data)
    if tile.width == WIDTH:
        # What is whole needs its parts no more, whoever still holds a checkpoint over them.
        # One that stays says nothing else, and does no harm.
        parts = [item.name async for item in store.list(PREFIX + partials(tile.level, tile.index))]
        await purge_many(store, parts)
