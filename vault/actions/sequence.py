"""Sequence: give records their place in the region's log, and sign what the log is now."""

import asyncio

from vault.context import Vault
from vault.domain.checkpoint import Checkpoint, encode, origin
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import canonical_bytes
from vault.sql import log as log_sql
from vault.sql.connection import transaction

BATCH = 5000
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
        tree = CompactRange(first, latest.hashes if latest else ())
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
        signed = log_sql.Signed(tree.size, tree.hashes, note)
        await log_sql.insert_checkpoint(conn, region, signed, vault.clock(), oldest)
    return len(records)
