"""
Prove: what lets somebody else check the log without trusting us.

Checkpoints, tiles and proofs of the log as it is published in the region's bucket. None of it says
what a record holds, except the bundles of entries, which are for who may read the log.
"""

from collections.abc import Mapping
from uuid import UUID

from keys.cosignature import CosignatureVerifier
from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError
from vault.actions.access import recorded, served
from vault.actions.bucket import PREFIX, fetch_tile
from vault.actions.published import trimmed_size
from vault.actions.stored_object import damaged
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.merkle import root_of
from vault.domain.proofs import (
    Run,
    consistency_runs,
    encode_proof,
    inclusion_runs,
    join,
    place_of,
    subtrees,
)
from vault.domain.tiles import BUNDLES, WIDTH, Tile, covering, decode_entries, decode_hashes
from vault.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    ObjectMissingError,
    UnavailableError,
)
from vault.sql import log_published as published_sql
from vault.sql import log_witness as witness_sql
from vault.sql.connection import connection, transaction

#: How far a witness's clock may be ahead.
CLOCK_SECONDS_MAX = 300.0


class Tiles:
    """The tiles of a published log of a size, each fetched once for one answer."""

    def __init__(self, vault: Vault, region: str, size: int) -> None:
        self._store, self._region, self.size = vault.stores[region], region, size
        self._known: dict[Tile, list[bytes]] = {}

    async def hash_of(self, run: Run) -> bytes:
        """Return the tree hash over a run of records."""
        return join([await self._subtree(tree) for tree in subtrees(*run)])

    async def compact(self, first: int, last: int) -> list[bytes]:
        """Return the hashes of the full subtrees that a run consists of, from left to right."""
        return [await self._subtree(tree) for tree in subtrees(first, last)]

    async def _subtree(self, subtree: tuple[int, int]) -> bytes:
        tile, start, end = place_of(subtree, self.size)
        if tile not in self._known:
            self._known[tile] = await self._fetch(tile)
        hashes = self._known[tile][start:end]
        if len(hashes) < end - start:
            raise self._damaged(tile, "is cut")
        return root_of(hashes)

    async def _fetch(self, tile: Tile) -> list[bytes]:
        try:
            return decode_hashes(await fetch_tile(self._store, tile))
        except ObjectMissingError:
            raise self._damaged(tile, "is missing") from None
        except (ValueError, IntegrityError):
            raise self._damaged(tile, "is damaged") from None

    def _damaged(self, tile: Tile, says: str) -> DamagedError:
        return _damaged_tile(self._region, tile, says)


async def checkpoint(
    vault: Vault, principal: Principal, region: str, *, witnessed: bool = False
) -> str:
    """Return the checkpoint that is published, or the newest one that a witness has cosigned."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        return (await published(vault, region, witnessed=witnessed))[1]


async def published(vault: Vault, region: str, *, witnessed: bool = False) -> tuple[int, str]:
    """Return size and note of what is published; raises `NotFoundError` when nothing is."""
    async with connection(vault.pool) as conn:
        if witnessed:
            found = await witness_sql.witnessed_note(conn, region)
            missing = "no witness has cosigned this log yet"
        else:
            found = await witness_sql.published_note(conn, region)
            missing = "the log has no published checkpoint yet; try again in a second"
    if found is None:
        raise NotFoundError(missing)
    return found


async def signing_keys(
    vault: Vault, principal: Principal, region: str
) -> Mapping[str, str | list[str]]:
    """Return the public key that signs now, and the notes by which earlier keys named it."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        return {"key": vault.signer.vkey, "handovers": list(vault.signer.handovers)}


async def tile(vault: Vault, principal: Principal, region: str, wanted: Tile) -> bytes:
    """Return a tile of the published log; bundles of entries only to who may read the log."""
    action = Action.LOG_READ if wanted.level == BUNDLES else Action.LOG_PROVE
    async with recorded(vault, principal, action, region=served(vault, region)):
        size, _ = await published(vault, region)
        if not _has(size, wanted):
            raise NotFoundError("the published log has no such tile")
        try:
            data = await fetch_tile(vault.stores[region], wanted)
            _whole(wanted, data)
        except ObjectMissingError:
            if await _may_be_gone(vault, region, wanted):
                raise NotFoundError("the published log has no such tile any more") from None
            raise _damaged_tile(region, wanted, "is missing") from None
        except (ValueError, IntegrityError):
            raise _damaged_tile(region, wanted, "is damaged") from None
        return data


def _whole(tile: Tile, data: bytes) -> None:
    """Raise `ValueError` unless that is as much as the tile holds."""
    found = decode_entries(data) if tile.level == BUNDLES else decode_hashes(data)
    if len(found) != tile.width:
        raise ValueError(tile.path)


async def _may_be_gone(vault: Vault, region: str, tile: Tile) -> bool:
    """Whether a tile was removed as it should be: it grew since, or its records were trimmed."""
    size, _ = await published(vault, region)
    now = next(covering(size, tile.level, tile.index * WIDTH), None)
    async with connection(vault.pool) as conn:
        trimmed = await trimmed_size(vault, conn, region)
    gone = tile.level == BUNDLES and tile.index * WIDTH < trimmed
    return gone or now is None or tile.width < now.width


def _damaged_tile(region: str, tile: Tile, says: str) -> DamagedError:
    return damaged(Damage(region, says, object=PREFIX + tile.path))


def _has(size: int, wanted: Tile) -> bool:
    """Whether a log of this size has the tile, or had it while it was shorter."""
    now = next(covering(size, wanted.level, wanted.index * WIDTH), None)
    return now is not None and wanted.width <= now.width


async def inclusion(
    vault: Vault,
    principal: Principal,
    region: str,
    *,
    record: UUID | None = None,
    index: int | None = None,
    witnessed: bool = False,
) -> str:
    """Return the proof that a record, by its id or its place, is in the log (C2SP tlog-proof)."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        if (record is None) == (index is None):
            raise InvalidRequestError("say which record: by its id, or by its index")
        size, note = await published(vault, region, witnessed=witnessed)
        if record is not None:
            index = await _place(vault, region, record)
        if index is None or index >= size:
            raise UnavailableError("the record is under no such checkpoint yet; try again")
        return await proof_under(vault, region, index, size, note)


async def proof_under(vault: Vault, region: str, index: int, size: int, note: str) -> str:
    """Return the proof that the record at an index is under a published checkpoint."""
    tiles = Tiles(vault, region, size)
    proof = [await tiles.hash_of(run) for run in inclusion_runs(index, size)]
    return encode_proof(index, proof, note)


async def _place(vault: Vault, region: str, record: UUID) -> int | None:
    async with connection(vault.pool) as conn:
        index = await witness_sql.place_of_record(conn, region, record)
        if index is None and not await witness_sql.is_waiting(conn, region, record):
            raise NotFoundError("there is no such record in this log")
    return index


async def consistency(
    vault: Vault, principal: Principal, region: str, old: int, new: int | None
) -> tuple[int, list[bytes]]:
    """Return up to which size, and the proof that the log of size `old` is a prefix of that one."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        size, _ = await published(vault, region)
        new = size if new is None else new
        if not 0 < old <= new <= size:
            raise InvalidRequestError(
                f"sizes must be from 1 to {size}, the size that is published, and ascending"
            )
        tiles = Tiles(vault, region, size)
        return new, [await tiles.hash_of(run) for run in consistency_runs(old, new)]


async def cosign(vault: Vault, principal: Principal, region: str, size: int, line: str) -> str:
    """Keep what a witness of the configuration says of a checkpoint; returns the witness's name."""
    async with recorded(vault, principal, Action.LOG_COSIGN, region=served(vault, region)):
        async with connection(vault.pool) as conn:
            note = await published_sql.checkpoint_of_size(conn, region, size)
        if note is None:
            raise NotFoundError("the log has no checkpoint of this size")
        vkey, time = _cosigned_by(vault, note + line)
        if time > vault.clock().timestamp() + CLOCK_SECONDS_MAX:
            raise InvalidRequestError("the cosignature is of a later time than it is here")
        async with transaction(vault.pool) as conn:
            await witness_sql.insert_cosignature(conn, region, size, vkey, line, vault.clock())
    return vkey.partition("+")[0]


def _cosigned_by(vault: Vault, note: str) -> tuple[str, int]:
    for vkey in vault.config.witnesses:
        try:
            return vkey, CosignatureVerifier(vkey).verify(note)[1]
        except IntegrityError:
            continue
    raise ForbiddenError("this is no cosignature of a witness that the vault was told of")
