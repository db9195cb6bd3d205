"""
Published: the log as the region's bucket holds it, and how a database is compared and brought up.

The bucket outlives the database: it says what the log was when the database has forgotten. Nothing
that is read here is trusted before it hashes into a checkpoint that this vault signed.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from keys.errors import IntegrityError, RolledBackError
from vault.context import ObjectStore, Vault
from vault.domain.checkpoint import Checkpoint, open_checkpoint, open_minimum
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import parse
from vault.domain.tiles import WIDTH, covering, decode_entries
from vault.errors import ConfigurationError, ObjectMissingError
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_witness as witness_sql
from vault.sql.connection import Connection

PREFIX = "log/"
CHECKPOINT = f"{PREFIX}checkpoint"
#: Longer than any tile or bundle can be.
OBJECT_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint of the bucket, and the signed note that says so."""

    checkpoint: Checkpoint
    note: str


async def fetch(store: ObjectStore, name: str) -> bytes:
    """Return a small object; raises `ObjectMissingError`, `IntegrityError` when it is not small."""
    data = bytearray()
    async with store.get(name) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > OBJECT_BYTES_MAX:
                raise IntegrityError(f"{name} in the bucket is too long")
    return bytes(data)


async def published_checkpoint(vault: Vault, region: str) -> Published | None:
    """Return the bucket's checkpoint, None when there is none; one not signed by us is refused."""
    try:
        note = (await fetch(vault.stores[region], CHECKPOINT)).decode(errors="replace")
    except ObjectMissingError:
        return None
    return Published(open_checkpoint(note, vault.signer, region), note)


async def published_entries(
    vault: Vault, region: str, checkpoint: Checkpoint
) -> AsyncIterator[list[bytes]]:
    """
    Yield the log's entries, up to 256 at once, in constant memory.

    They are authentic only when the last was yielded; raises `IntegrityError` when they do not
    hash into the checkpoint.
    """
    tree = CompactRange()
    for tile in covering(checkpoint.size):
        try:
            entries = decode_entries(await fetch(vault.stores[region], PREFIX + tile.path))
        except (ValueError, ObjectMissingError):
            raise IntegrityError(f"{tile.path} of {region}'s log is missing or damaged") from None
        if len(entries) != tile.width:
            raise IntegrityError(f"{tile.path} of {region}'s log is damaged")
        for entry in entries:
            tree.append(leaf_hash(entry))
        yield entries
    if tree.root() != checkpoint.root:
        raise IntegrityError(f"the published log of {region} does not match its checkpoint")


async def trimmed_size(vault: Vault, conn: Connection, region: str) -> int:
    """Return below which index records may be gone, as the vault's key has signed it."""
    note = await witness_sql.minimum_note(conn, region)
    return open_minimum(note, vault.signer, region).size if note else 0


async def require_not_behind(vault: Vault, conn: Connection, region: str) -> None:
    """
    Raise `RolledBackError` when the bucket holds a longer log than the database, or another one.

    `ConfigurationError` when the bucket should hold a log and does not.
    """
    published = await published_checkpoint(vault, region)
    if published is None:
        if await published_sql.published_size(conn, region):
            raise ConfigurationError(
                f"the bucket of {region} does not hold the log that was published there; is it "
                "the right bucket?"
            )
        return
    latest = await log_sql.latest_checkpoint(conn, region)
    size = latest.size if latest else 0
    if published.checkpoint.size > size:
        raise RolledBackError(
            f"the database of {region} was rolled back: its log has {size} records, the published "
            f"one {published.checkpoint.size}; stop every server, then run `portvault restore`"
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
    tree, adopted, agrees = CompactRange(), 0, True
    await published_sql.begin_rewriting(conn)
    async for entries in published_entries(vault, region, published.checkpoint):
        first, ours = tree.size, [leaf_hash(entry) for entry in entries]
        records = [parse(entry) for entry in entries]
        for leaf in ours:
            tree.append(leaf)
        have = [leaf for leaf, _ in await published_sql.leaves(conn, region, first, WIDTH)]
        if agrees and have[: len(ours)] == ours:
            continue
        if agrees:
            # From here on nothing of the database's own order stands.
            agrees = False
            await published_sql.cut_log(conn, region, first)
        await published_sql.adopt(conn, region, first, records, ours)
        adopted += len(set(ours) - set(have))
    if not agrees:
        signed = log_sql.Signed(tree.size, tree.hashes, published.note)
        await log_sql.insert_checkpoint(conn, region, signed, vault.clock())
    await published_sql.set_published(conn, region, published.checkpoint.size)
    await published_sql.end_rewriting(conn)
    return adopted
