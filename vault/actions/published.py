"""
Published: the log as the region's bucket holds it, and how a database is compared and brought up.

The bucket outlives the database: it says what the log was when the database has forgotten. Nothing
that is read here is trusted before it hashes into a checkpoint that this vault signed.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from keys.errors import IntegrityError, RolledBackError
from vault.actions.bucket import CHECKPOINT, MINIMUM, fetch_tile, newest_note
from vault.context import Vault
from vault.domain.checkpoint import Checkpoint, open_checkpoint, open_minimum
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import parse
from vault.domain.tiles import WIDTH, Tile, covering, decode_entries, decode_hashes
from vault.errors import ConfigurationError, ObjectMissingError
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection


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
