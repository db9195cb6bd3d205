"""Sequence: give records their place in the region's log, and sign what the log is now."""

import asyncio
import logging

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError
from vault.context import Vault
from vault.domain.checkpoint import Checkpoint, encode, open_checkpoint, origin
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import canonical_bytes
from vault.domain.tiles import WIDTH
from vault.sql import log as log_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection, transaction
from vault.sql.log import Signed

log = logging.getLogger(__name__)

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
