"""Sequence: give records their place in the region's log, and sign what the log is now."""

from vault.context import Vault
from vault.domain.checkpoint import Checkpoint, encode, origin
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import canonical_bytes
from vault.sql import log as log_sql
from vault.sql.connection import transaction

BATCH = 5000


async def sequence_log(vault: Vault, region: str) -> int:
    """Order what waits and sign a checkpoint, in one transaction; returns how many records."""
    async with transaction(vault.pool) as conn:
        if not await log_sql.try_sequencer(conn, region):
            return 0
        records = await log_sql.take_queue(conn, region, BATCH)
        if not records:
            return 0
        latest = await log_sql.latest_checkpoint(conn, region)
        first = latest.size if latest else 0
        tree = CompactRange(first, latest.hashes if latest else ())
        leaves = [(record.id, leaf_hash(canonical_bytes(record))) for record in records]
        for _, leaf in leaves:
            tree.append(leaf)
        note = vault.signer.sign(encode(Checkpoint(origin(region), tree.size, tree.root())))
        await log_sql.insert_leaves(conn, region, first, leaves)
        signed = log_sql.Signed(tree.size, tree.hashes, note)
        await log_sql.insert_checkpoint(conn, region, signed, vault.clock())
    return len(records)
