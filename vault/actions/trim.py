"""
Trim: when the log's own retention is over, drop what records say and keep their hashes.

The signed statement of how far comes first, in the bucket and in the transaction that drops the
bodies, so that a verifier can tell what was trimmed from what was taken away. Whole bundles go at
once; a crash at any point leaves work that the next look finds again.
"""

from itertools import takewhile

from vault.actions.access import recorded
from vault.actions.bucket import MINIMUM, PREFIX, purge_many, put_note
from vault.actions.expiry_limits import trusted_time
from vault.actions.log_tiles import Tiles
from vault.actions.prove import published
from vault.actions.seal import worker
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.checkpoint import Checkpoint, encode, minimum, origin
from vault.domain.tiles import BUNDLES, WIDTH, Tile
from vault.sql import log as log_sql
from vault.sql.connection import connection, transaction

#: Bundles that are trimmed at once.
BATCH = 40


async def trim_log(vault: Vault, region: str) -> int:
    """Trim what is due, some bundles at a time; returns how many records were."""
    keep = vault.log_policy[region]
    if keep is None:
        return 0
    async with transaction(vault.pool) as conn:
        if not await log_sql.try_publisher(conn, region):
            return 0
        before = await log_sql.minimum(conn, region)
        # A clock that runs ahead would have it signed that young records may be gone. What it notes
        # is committed at once: the other looks at the clock do not wait until all is trimmed.
        async with transaction(vault.pool) as looking:
            now = await trusted_time(vault, looking, region)
        due = await log_sql.first_to_keep(conn, region, before.size, BATCH * WIDTH, now - keep)
        size = due - due % WIDTH
        if size > before.size:
            await _trim(vault, region, before.size, size)
        await _purge(vault, region, before.purged, max(size, before.size))
    return max(0, size - before.size)


async def _trim(vault: Vault, region: str, first: int, size: int) -> None:
    async with recorded(vault, worker(vault), Action.LOG_TRIM, region=region) as access:
        root = await _root(vault, region, size)
        said = minimum(Checkpoint(origin(region), size, root))
        note = vault.signer.sign(encode(said))
        # A crash from here on leaves a statement of what may be gone and is still there.
        await put_note(vault.stores[region], MINIMUM, size, note)
        async with transaction(vault.pool) as conn:
            await log_sql.set_minimum(conn, region, size, note)
            await log_sql.trim(conn, region, first, size)
            await log_sql.insert_records(conn, [access.conclude()])


async def _root(vault: Vault, region: str, size: int) -> bytes:
    """Return the root of the log's first records, from tiles that prove it under a checkpoint."""
    now, note = await published(vault, region)
    return await Tiles(vault, region, now, note).hash_of((0, size))


async def _purge(vault: Vault, region: str, first: int, size: int) -> None:
    """Remove the bundles whose records are gone; the tiles of their hashes stay."""
    bundles = range(first // WIDTH, size // WIDTH)
    names = [PREFIX + Tile(BUNDLES, index, WIDTH).path for index in bundles]
    gone, failures = await purge_many(vault.stores[region], names)
    # As far as all are gone: a look at the rest begins there.
    purged = first + WIDTH * len(list(takewhile(gone.__contains__, names)))
    if purged > first:
        async with connection(vault.pool) as conn:
            await log_sql.set_purged(conn, region, purged)
    if failures:
        raise failures[0]
