"""
Publish: put the log into the region's bucket, where no rollback of the database reaches it.

First the tiles that a checkpoint covers, then the checkpoint; so whoever finds a checkpoint finds
its tiles. A crash between leaves tiles that nobody asks for yet; the next step writes them again.
A checkpoint of a larger log counts before any other: a bucket that is ahead shows that the database
was rolled back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError, RolledBackError
from vault.actions.access import Access
from vault.actions.bucket import (
    CHECKPOINT,
    MINIMUM,
    PREFIX,
    fetch_tile,
    newest_note,
    purge_many,
    put_note,
    put_object,
)
from vault.context import ObjectStore, Vault
from vault.domain.checkpoint import Checkpoint, encode, open_checkpoint, open_minimum, origin
from vault.domain.merkle import CompactRange, covers, leaf_hash, root_of
from vault.domain.records import Record, canonical_bytes, parse
from vault.domain.tiles import (
    BUNDLES,
    WIDTH,
    Tile,
    covering,
    decode_entries,
    decode_hashes,
    encode_entries,
    encode_hashes,
    partials,
)
from vault.errors import ConfigurationError, ObjectMissingError, RecordsUnavailableError
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.log import Signed

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


# ---- Published: the log as the region's bucket holds it, and how a database is compared and
# brought up.
#
# The bucket outlives the database: it says what the log was when the database has forgotten.
# Nothing that is read here is trusted before it hashes into a checkpoint that this vault signed.


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint of the bucket, and the signed note that says so."""

    checkpoint: Checkpoint
    note: str


async def published_checkpoint(vault: Vault, region: str) -> Published | None:
    """Return the bucket's newest checkpoint that this vault signed; None when there is none."""
    found = await newest_note(
        vault.stores[region],
        region,
        CHECKPOINT,
        lambda note: open_checkpoint(note, vault.signer, region),
        vault.keyring.passed_over,
        required=True,
    )
    return Published(*found) if found else None


@dataclass(frozen=True, slots=True)
class Page:
    """Up to 256 places of the published log: their hashes, and their entries unless trimmed."""

    leaves: list[bytes]
    entries: list[bytes] | None


async def published_pages(
    vault: Vault, region: str, checkpoint: Checkpoint, trimmed: int
) -> AsyncIterator[Page]:
    """
    Yield the log page by page, in constant memory; of the first `trimmed` records only the hashes.

    They are authentic only when the last was yielded; raises `IntegrityError` when they do not
    hash into the checkpoint.
    """
    tree = CompactRange()
    for bundle in covering(checkpoint.size):
        gone = (bundle.index + 1) * WIDTH <= trimmed
        tile = Tile(0, bundle.index, bundle.width) if gone else bundle
        try:
            data = await fetch_tile(vault.stores[region], tile)
            entries = None if gone else decode_entries(data)
            leaves = decode_hashes(data) if entries is None else list(map(leaf_hash, entries))
        except (ValueError, ObjectMissingError):
            raise IntegrityError(f"{tile.path} of {region}'s log is missing or damaged") from None
        if len(leaves) != tile.width:
            raise IntegrityError(f"{tile.path} of {region}'s log is damaged")
        for leaf in leaves:
            tree.append(leaf)
        yield Page(leaves, entries)
    if tree.root() != checkpoint.root:
        raise IntegrityError(f"the published log of {region} does not match its checkpoint")


async def published_minimum(vault: Vault, region: str) -> tuple[int, str]:
    """Return below which index the bucket's entries may be gone, and the note that says so."""
    found = await newest_note(
        vault.stores[region],
        region,
        MINIMUM,
        lambda note: open_minimum(note, vault.signer, region),
        vault.keyring.passed_over,
        # A log may never have been trimmed; where it was, and that is withheld, its bundles miss.
        required=False,
    )
    return (found[0].size, found[1]) if found else (0, "")


async def trimmed_size(vault: Vault, conn: Connection, region: str) -> int:
    """Return below which index records may be gone, as the vault's key has signed it."""
    note = await published_sql.minimum_note(conn, region)
    return open_minimum(note, vault.signer, region).size if note else 0


async def require_own_key(vault: Vault, conn: Connection, region: str) -> None:
    """Raise `ConfigurationError` when the log was signed by a key that is not the one here."""
    latest = await log_sql.latest_checkpoint(conn, region)
    if latest is None:
        return
    try:
        open_checkpoint(latest.note, vault.signer, region)
    except IntegrityError:
        raise ConfigurationError(
            f"the log of {region} is signed by another key than {vault.config.signing_key_path}: "
            "every machine of a deployment needs the same one, so copy it from where the log was "
            "signed; if it is lost, ask before you go on: auditors will not accept another"
        ) from None


def less_than_bucket(region: str) -> str:
    """Say what to do where the database is empty, a backup, or a standby that lagged."""
    return (
        f"the database knows less than the bucket of {region}: stop every server, then "
        "`portvault restore FILE --dry-run` with the last backup, or without FILE where it is "
        "loaded already"
    )


async def require_not_behind(vault: Vault, conn: Connection, region: str) -> None:
    """
    Raise `RolledBackError` when the bucket holds a longer log than the database, or another one.

    `ConfigurationError` when the bucket should hold a log and does not.
    """
    published = await published_checkpoint(vault, region)
    if published is None:
        if await published_sql.published_size(conn, region):
            raise ConfigurationError(
                f"the bucket of {region} does not hold the checkpoint that was published there; is "
                f"it the right bucket? If so, `portvault repair --region {region}` writes it anew"
            )
        return
    latest = await log_sql.latest_checkpoint(conn, region)
    size = latest.size if latest else 0
    if published.checkpoint.size > size:
        raise RolledBackError(
            f"{less_than_bucket(region)}. Its log has {size} records, the published one "
            f"{published.checkpoint.size}"
        )
    note = await published_sql.checkpoint_of_size(conn, region, published.checkpoint.size)
    if (
        note is None
        or open_checkpoint(note, vault.signer, region).root != published.checkpoint.root
    ):
        raise RolledBackError(
            f"the database of {region} holds another log than was published; stop every server, "
            "then run `portvault restore`"
        )


async def adopt_published(vault: Vault, conn: Connection, region: str) -> int:
    """
    Bring the database's log up to the published one; returns how many records are new in it.

    In the caller's transaction, which must own the tables: their triggers are off meanwhile. Where
    both differ, what was published stands, and the database's own records wait for a place again.
    """
    published = await published_checkpoint(vault, region)
    if published is None:
        return 0
    trimmed, note = await published_minimum(vault, region)
    tree, adopted, agrees = CompactRange(), 0, True
    await published_sql.begin_rewriting(conn)
    async for page in published_pages(vault, region, published.checkpoint, trimmed):
        first = tree.size
        for leaf in page.leaves:
            tree.append(leaf)
        have = [
            item.hash for item in await search_sql.leaves_of(conn, region, first, first + WIDTH)
        ]
        if agrees and have[: len(page.leaves)] == page.leaves:
            continue
        if agrees:
            # From here on nothing of the database's own order stands.
            agrees = False
            await published_sql.cut_log(conn, region, first)
        if page.entries is None:
            await log_sql.insert_trimmed(conn, region, first, page.leaves)
        else:
            records = [parse(entry) for entry in page.entries]
            await published_sql.adopt(conn, region, first, records, page.leaves)
        adopted += len(set(page.leaves) - set(have))
    if not agrees:
        signed = log_sql.Signed(tree.size, tree.hashes, published.note)
        await log_sql.insert_checkpoint(conn, region, signed, vault.clock())
    await published_sql.set_published(conn, region, published.checkpoint.size)
    if trimmed:
        await log_sql.set_minimum(conn, region, trimmed, note)
        # What the backup still says of them.
        await log_sql.trim(conn, region, 0, trimmed)
    await published_sql.end_rewriting(conn)
    return adopted


# ---- Sequence: give records their place in the region's log, and sign what the log is now. ------

BATCH = 5000
WRONG_HASHES = "does not hash into the signed checkpoint"
#: After so many the event loop gets its turn: requests must not wait for a whole batch.
HASHES_IN_A_ROW = 500


async def sequence_log(vault: Vault, region: str) -> int:
    """Order what waits and sign a checkpoint, in one transaction; returns how many records."""
    async with transaction(vault.pool) as conn:
        if not await log_sql.try_sequencer(conn, region):
            return 0
        records, oldest = await log_sql.take_queue(conn, region, BATCH)
        if not records:
            return 0
        latest = await log_sql.latest_checkpoint(conn, region)
        first = latest.size if latest else 0
        tree = await _grown(vault, conn, region, latest)
        leaves = []
        for number, record in enumerate(records, 1):
            leaf = leaf_hash(canonical_bytes(record))
            tree.append(leaf)
            leaves.append((record, leaf))
            if number % HASHES_IN_A_ROW == 0:
                await asyncio.sleep(0)
        note = vault.signer.sign(encode(Checkpoint(origin(region), tree.size, tree.root())))
        await log_sql.insert_leaves(conn, region, first, leaves)
        await log_sql.note_open(conn, region, records)
        signed = Signed(tree.size, tree.hashes, note)
        await log_sql.insert_checkpoint(conn, region, signed, vault.clock(), oldest)
    return len(records)


async def _grown(
    vault: Vault, conn: Connection, region: str, latest: Signed | None
) -> CompactRange:
    """
    Return what the log grows from: what hashes into its newest checkpoint, and nothing else.

    What is kept beside the checkpoint only saves time. Raises `DamagedError` where neither that nor
    the log's own hashes are what was signed: whatever was signed upon it would prove nothing.
    """
    if latest is None:
        return CompactRange()
    place = "log_checkpoint", str(latest.size)
    try:
        root = open_checkpoint(latest.note, vault.signer, region).root
    except IntegrityError:
        raise _stopped(Damage(region, "does not verify", *place, "note")) from None
    if (kept := kept_range(latest)) is not None and kept.root() == root:
        return kept
    log.critical("%s; the log is hashed anew", Damage(region, WRONG_HASHES, *place, "hashes"))
    tree = CompactRange()
    for start in range(0, latest.size, WIDTH):
        end = min(start + WIDTH, latest.size)
        for leaf in await search_sql.leaves_of(conn, region, start, end):
            tree.append(leaf.hash)
    if tree.size != latest.size or tree.root() != root:
        raise _stopped(Damage(region, WRONG_HASHES, "log_leaf", f"0 to {latest.size - 1}"))
    return tree


def kept_range(signed: Signed) -> CompactRange | None:
    """Return what is kept beside a checkpoint; None where that is not even of its size."""
    try:
        return CompactRange(signed.size, signed.hashes)
    except ValueError:
        return None


def _stopped(item: Damage) -> DamagedError:
    return DamagedError(f"nothing is added to the log of {item.region}", [item])


# ---- Published first: what cannot be undone waits until its record lies outside the database's
# reach.
#
# Destroying a root key, restoring, and reading what a role alone may not read are begun only when
# the intent is under a checkpoint in the region's bucket: no rollback of the database can forget
# it.

LOOK_SECONDS = 0.05


async def wait_published(access: Access) -> None:
    """
    Return once the intent is under a published checkpoint, in each log where it stands.

    Does itself what a worker would do. Raises what keeps a log from being published, within
    `store_timeout_seconds` for each.
    """
    for one in access.everywhere:
        await _wait(one.vault, one.intent)


async def _wait(vault: Vault, intent: Record) -> None:
    try:
        async with asyncio.timeout(vault.config.store_timeout_seconds):
            while True:
                await sequence_log(vault, intent.region)
                await publish_log(vault, intent.region)
                async with connection(vault.pool) as conn:
                    if await published_sql.is_published(conn, intent.region, intent.id):
                        return
                # Somebody else orders or publishes at this moment.
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise RecordsUnavailableError(
            "the record could not be published in time, so nothing was done; try again"
        ) from None
