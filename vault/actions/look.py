"""
The look at rest: open what nobody has asked for, and name what is damaged.

The worker looks a little at a time, at everything of a region once in `damage_look_seconds`: the
key tree and its mirror, then documents and faxes with their objects, then the details of orders and
what they are found by, then the published log. What it finds is kept until a whole look does not
find it any more, or until it was mended. `portvault repair` looks at all of it at once. Nothing
that is opened leaves here.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import DataKey, WrappedKey
from vault.actions.access import recorded
from vault.actions.bucket import CHECKPOINT, PREFIX, fetch_tile, note_name, put_note, put_object
from vault.actions.keys import worker
from vault.actions.log_publish import WRONG_HASHES, kept_range, published_checkpoint, trimmed_size
from vault.actions.read import Stored, lost_key, open_metadata, open_object
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.checkpoint import open_checkpoint
from vault.domain.documents import Custody, Document
from vault.domain.faxes import Fax
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.orders import Details, decode_details, details_context, marks_of
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
from vault.sql import damage as damage_sql
from vault.sql import documents as documents_sql
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.damage import Look
from vault.sql.log import Signed

log = logging.getLogger(__name__)

#: What is looked at in one step, at most: so many things, and objects of about so many bytes.
THINGS_MAX, BYTES_MAX = 100, 32 * 1024 * 1024
ATTEMPTS = 5
TREE, MIRROR, DOCUMENTS, FAXES, ORDERS = "tree", "mirror", "documents", "faxes", "orders"
LOG = "log"
#: The parts in their order; the first two are the keyring's.
PARTS = (TREE, MIRROR, DOCUMENTS, FAXES, ORDERS, LOG)
_NEXT = {
    DOCUMENTS: damage_sql.next_documents,
    FAXES: damage_sql.next_faxes,
    ORDERS: damage_sql.next_orders,
}


async def look_at_rest(vault: Vault, region: str) -> int:
    """Take one step of the look, where it is time; the reconciler's next comes after a pause."""
    now = vault.clock()
    async with connection(vault.pool) as conn:
        look = await damage_sql.look_of(conn, region)
    if look is None or look.ended_at is not None:
        if look and now - look.began_at < timedelta(seconds=vault.config.damage_look_seconds):
            return 0
        look = Look(PARTS[0], None, now, None)
    async with recorded(vault, worker(vault), Action.DAMAGE_LOOK, region=region):
        found, after = await _step(vault, region, look.part, look.after)
    for item in found:
        log.critical("%s; `portvault repair --region %s` mends what can be", item, region)
    part = look.part if after else next(iter(PARTS[PARTS.index(look.part) + 1 :]), None)
    async with transaction(vault.pool) as conn:
        await damage_sql.note(conn, found, now)
        if part is None:
            await damage_sql.forget_before(conn, region, look.began_at)
        ended_at = now if part is None else None
        look = replace(look, part=part or PARTS[-1], after=after, ended_at=ended_at)
        await damage_sql.set_look(conn, region, look)
    return 0


async def known_damage(vault: Vault) -> dict[str, int]:
    """Return how much is known to be damaged, of each region that has any."""
    async with connection(vault.pool) as conn:
        return await damage_sql.counts(conn)


async def whole_look(vault: Vault, region: str) -> AsyncIterator[Damage]:
    """Yield all that is damaged but the tree and its mirror, whose repair looks at them itself."""
    for part in PARTS[2:]:
        after: str | None = None
        while True:
            found, after = await _step(vault, region, part, after)
            for item in found:
                yield item
            if after is None:
                break


async def _step(
    vault: Vault, region: str, part: str, after: str | None
) -> tuple[list[Damage], str | None]:
    """Look at some things of a part; returns what is damaged, and the last one if there is more."""
    if part == TREE:
        damages, last = await vault.keyring.look_at_tree(region, int(after or -1))
        return damages, None if last is None else str(last)
    if part == MIRROR:
        return await vault.keyring.look_at_mirror(region, after or "")
    if part == LOG:
        return await look_at_log(vault, region, after)
    async with connection(vault.pool) as conn:
        things = await _NEXT[part](conn, region, UUID(after) if after else None, THINGS_MAX)
    # What many hang on is damaged once.
    found, size = dict[str, Damage](), 0
    for identity in things:
        damages, size_bytes = await _look_at(vault, part, identity)
        found.update((item.place, item) for item in damages)
        size += size_bytes
        if size > BYTES_MAX:
            return list(found.values()), str(identity)
    return list(found.values()), str(things[-1]) if len(things) == THINGS_MAX else None


async def _look_at(vault: Vault, part: str, identity: UUID) -> tuple[list[Damage], int]:
    if part == ORDERS:
        return await _order_damages(vault, identity), 0
    for _ in range(ATTEMPTS):
        thing, wrapped = await _find(vault, part, identity)
        if thing is None or thing.custody is not Custody.STORED:
            return [], 0
        with suppress(StaleScopeError):
            damages = await _damages(vault, thing, wrapped)
            # What was shredded meanwhile is not damaged.
            again, _ = await _find(vault, part, identity) if damages else (thing, None)
            if again is None or again.custody is not Custody.STORED:
                return [], 0
            return damages, thing.size_bytes or 0
    return [], 0


async def _find(
    vault: Vault, part: str, identity: UUID
) -> tuple[Document | Fax | None, WrappedKey | None]:
    async with connection(vault.pool) as conn:
        if part == FAXES:
            return await damage_sql.fax_with_key(conn, identity)
        found = await documents_sql.find_with_key(conn, identity)
        return found.document, found.key


async def _damages(vault: Vault, thing: Document | Fax, wrapped: WrappedKey | None) -> list[Damage]:
    """Open a document or a fax, its metadata and its object."""
    stored, found = Stored.of(thing), list[Damage]()
    try:
        if wrapped is None:
            raise lost_key(thing.region, thing.id)
        key = await vault.keyring.open_key(wrapped)
    except DamagedError as error:
        return list(error.damages)
    try:
        if thing.metadata is not None:
            open_metadata(key, stored, len)
    except DamagedError as error:
        found += error.damages
    try:
        async with open_object(vault, stored, key) as pieces:
            async for _ in pieces:
                pass
    except DamagedError as error:
        found += error.damages
    return found


async def _order_damages(vault: Vault, identity: UUID) -> list[Damage]:
    """Open an order's details, and compare what it is found by."""
    for _ in range(ATTEMPTS):
        async with connection(vault.pool) as conn:
            wrapped = await orders_sql.details_key(conn, identity)
            order = await orders_sql.find(conn, identity)
        if order is None or order.details is None:
            return []
        with suppress(StaleScopeError):
            try:
                if wrapped is None:
                    raise lost_key(order.region, identity)
                key = await vault.keyring.open_key(wrapped)
            except DamagedError as error:
                return list(error.damages)
            try:
                context = details_context(order.region, identity)
                details = decode_details(key.decrypt(order.details, context))
            except IntegrityError:
                says = "does not open"
                return [Damage(order.region, says, "porting_order", str(identity), "details")]
            async with connection(vault.pool) as conn:
                return await _index_damages(vault, conn, order.region, identity, details)
    return []


async def _index_damages(
    vault: Vault, conn: Connection, region: str, order: UUID, details: Details
) -> list[Damage]:
    stands = await damage_sql.marks_of(conn, order)
    if any(key is None for key, _ in stands):
        # It waits to be indexed anew.
        return []
    keys = {key.id: key for key in await details_sql.index_keys(conn, region)}
    for identity in {key for key, _ in stands if key is not None}:
        wrapped = keys[identity].wrapped if identity in keys else None
        if wrapped is None:
            # It is being replaced, which indexes the order anew.
            return []
        try:
            opened: DataKey = await vault.keyring.open_key(wrapped)
        except DamagedError as error:
            return list(error.damages)
        wanted = sorted(marks_of(opened, details))
        if sorted(mark for key, mark in stands if key == identity) != wanted:
            says = "does not find the order"
            return [Damage(region, says, "number_index", str(order), "mac")]
    return []


# ---- The look at the log at rest: what was published, page by page, against the database. -------
#
# A page is up to 256 records: their bundle, their tile of hashes, and what the tiles above say of
# them. The bucket is mended from the database, and only where all of the database's log hashes
# into the signed checkpoint that was published: else the bucket holds the better copy, or the
# evidence.

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
