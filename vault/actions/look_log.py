"""
The look at the log at rest: what was published, page by page, against the database.

A page is up to 256 records: their bundle, their tile of hashes, and what the tiles above say of
them. The bucket is mended from the database, and only where all of the database's log hashes into
the signed checkpoint that was published: else the bucket holds the better copy, or the evidence.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from keys.damage import Damage
from keys.errors import IntegrityError
from vault.actions.bucket import CHECKPOINT, PREFIX, fetch_tile, note_name, put_note, put_object
from vault.actions.published import published_checkpoint, trimmed_size
from vault.actions.sequence import WRONG_HASHES, kept_range
from vault.context import Vault
from vault.domain.checkpoint import open_checkpoint
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import canonical_bytes
from vault.domain.tiles import (
    BUNDLES,
    WIDTH,
    Tile,
    covering,
    encode_entries,
    encode_hashes,
    parse_path,
)
from vault.errors import ObjectMissingError
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection, connection
from vault.sql.log import Signed

#: Pages that are looked at in one step.
PAGES_MAX = 32


@dataclass(frozen=True, slots=True)
class Expected:
    """A tile, and what the database has it hold."""

    tile: Tile
    data: bytes

    @property
    def name(self) -> str:
        """Its name in the bucket."""
        return PREFIX + self.tile.path


async def look_at_log(
    vault: Vault, region: str, after: str | None
) -> tuple[list[Damage], str | None]:
    """Look at the next pages of a region's published log; returns the last if more follow."""
    first, found = int(after or -1) + 1, list[Damage]()
    async with connection(vault.pool) as conn:
        size = await published_sql.published_size(conn, region)
        trimmed = await trimmed_size(vault, conn, region)
        pages = list(covering(size))
        for page in pages[first : first + PAGES_MAX]:
            wrong = await _wrong_row(conn, region, page, trimmed)
            if wrong is not None:
                found.append(wrong)
                continue
            async for expected in _expected(conn, region, page, size, trimmed):
                says = await _wrong_object(vault, region, expected)
                if says is not None:
                    found.append(Damage(region, says, object=expected.name))
        latest = await log_sql.latest_checkpoint(conn, region)
        if len(pages) <= first + PAGES_MAX and latest and not _hashes_into(vault, region, latest):
            says, size = WRONG_HASHES, latest.size
            found.append(Damage(region, says, "log_checkpoint", str(size), "hashes"))
    last = first + PAGES_MAX - 1
    return found, str(last) if last + 1 < len(pages) else None


def _hashes_into(vault: Vault, region: str, signed: Signed) -> bool:
    """Whether what is kept beside a checkpoint, to go on from it, is what it was signed over."""
    kept = kept_range(signed)
    with suppress(IntegrityError):
        return (
            kept is not None
            and kept.root() == open_checkpoint(signed.note, vault.signer, region).root
        )
    return False


async def mend_log(vault: Vault, item: Damage, *, dry_run: bool) -> bool:
    """Write a tile anew from the database; False where the database's log is not the signed one."""
    async with connection(vault.pool) as conn:
        size = await published_sql.published_size(conn, item.region)
        if not await _is_signed(vault, conn, item.region, size):
            return False
        trimmed = await trimmed_size(vault, conn, item.region)
        for page in covering(size):
            async for expected in _expected(conn, item.region, page, size, trimmed):
                if expected.name == item.object:
                    if not dry_run:
                        await put_object(vault.stores[item.region], expected.name, expected.data)
                    return True
    return False


async def mend_checkpoint(
    vault: Vault, region: str, *, dry_run: bool
) -> tuple[Damage, bool] | None:
    """
    Write the published checkpoint anew; None where the bucket holds one that verifies.

    False where the database's log is not the signed one, or lacks what the bucket's tiles show:
    then the database may have been rolled back, and they are the evidence.
    """
    async with connection(vault.pool) as conn:
        size = await published_sql.published_size(conn, region)
        note = await published_sql.checkpoint_of_size(conn, region, size)
        try:
            found = await published_checkpoint(vault, region)
        except IntegrityError:
            found = None
        if not size or found is not None:
            return None
        item = Damage(region, "is missing or damaged", object=note_name(CHECKPOINT, size))
        if note is None or not await _is_signed(vault, conn, region, size):
            return item, False
        if not await _holds_tiles(vault, conn, region):
            return item, False
    if not dry_run:
        await put_note(vault.stores[region], CHECKPOINT, size, note)
    return item, True


async def _holds_tiles(vault: Vault, conn: Connection, region: str) -> bool:
    """Whether the database's log has every record that the bucket's lowest tiles show."""
    signed = await log_sql.latest_checkpoint(conn, region)
    size = signed.size if signed else 0
    async for item in vault.stores[region].list(f"{PREFIX}tile/"):
        try:
            tile = parse_path(item.name.removeprefix(PREFIX))
        except ValueError:
            continue
        start = tile.index * WIDTH
        if tile.level <= 0 and start + tile.width > size:
            return False
        if tile.level == 0:
            leaves = await search_sql.leaves_of(conn, region, start, start + tile.width)
            expected = encode_hashes([leaf.hash for leaf in leaves])
            if await _wrong_object(vault, region, Expected(tile, expected)) is not None:
                return False
    return True


async def _wrong_row(conn: Connection, region: str, page: Tile, trimmed: int) -> Damage | None:
    """Return the first record of a page that its leaf's hash is not of."""
    start = page.index * WIDTH
    leaves = await search_sql.leaves_of(conn, region, start, start + page.width)
    for index, leaf in enumerate(leaves, start):
        if leaf.record is None and index < trimmed:
            continue
        if leaf.record is None or leaf_hash(canonical_bytes(leaf.record)) != leaf.hash:
            says = "is not that of its record"
            return Damage(region, says, "log_leaf", str(index), "leaf_hash")
    if len(leaves) < page.width:
        return Damage(region, "is missing", "log_leaf", str(start + len(leaves)))
    return None


async def _expected(
    conn: Connection, region: str, page: Tile, size: int, trimmed: int
) -> AsyncIterator[Expected]:
    """Yield the tiles that end with a page: its own, and those above that it completes."""
    start, width = page.index * WIDTH, page.width
    leaves = await search_sql.leaves_of(conn, region, start, start + width)
    entries = [canonical_bytes(leaf.record) for leaf in leaves if leaf.record]
    if len(entries) == width and start >= trimmed:
        yield Expected(Tile(BUNDLES, page.index, width), encode_entries(entries))
    yield Expected(Tile(0, page.index, width), encode_hashes([leaf.hash for leaf in leaves]))
    level, ended = 1, start + width
    while ended == size or ended % WIDTH ** (level + 1) == 0:
        each = WIDTH**level
        below = ended // each
        if below == 0:
            return
        index = (below - 1) // WIDTH
        hashes = [await _root(conn, region, at * each, each) for at in range(index * WIDTH, below)]
        if ended == size or len(hashes) == WIDTH:
            yield Expected(Tile(level, index, len(hashes)), encode_hashes(hashes))
        level += 1


async def _root(conn: Connection, region: str, first: int, count: int) -> bytes:
    """Return the root of records in the database, page by page."""
    grown = CompactRange()
    for start in range(first, first + count, WIDTH):
        for leaf in await search_sql.leaves_of(conn, region, start, start + WIDTH):
            grown.append(leaf.hash)
    return grown.root()


async def _wrong_object(vault: Vault, region: str, expected: Expected) -> str | None:
    try:
        found = await fetch_tile(vault.stores[region], expected.tile)
    except ObjectMissingError:
        return "is missing"
    except IntegrityError:
        return "is damaged"
    return None if found == expected.data else "is not what was published"


async def _is_signed(vault: Vault, conn: Connection, region: str, size: int) -> bool:
    note = await published_sql.checkpoint_of_size(conn, region, size)
    if note is None:
        return False
    try:
        signed = open_checkpoint(note, vault.signer, region)
    except IntegrityError:
        return False
    grown = CompactRange()
    for page in covering(size):
        start = page.index * WIDTH
        leaves = await search_sql.leaves_of(conn, region, start, start + page.width)
        wrong = await _wrong_row(conn, region, page, await trimmed_size(vault, conn, region))
        if wrong is not None:
            return False
        for leaf in leaves:
            grown.append(leaf.hash)
    return grown.root() == signed.root
