"""
Prove: what lets somebody else check the log without trusting us.

Checkpoints, tiles and proofs of the log as it is published in the region's bucket. None of it says
what a record holds, except the bundles of entries, which are for who may read the log.
"""

from collections.abc import Mapping
from uuid import UUID

from keys.cosignature import CosignatureVerifier
from keys.errors import IntegrityError
from vault.actions.access import recorded, served
from vault.actions.log_tiles import MissingTileError, Tiles
from vault.actions.published import trimmed_size
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.tiles import (
    BUNDLES,
    WIDTH,
    Tile,
    consistency_runs,
    covering,
    encode_entries,
    encode_hashes,
    encode_proof,
    inclusion_runs,
)
from vault.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnavailableError
from vault.sql import log_published as published_sql
from vault.sql.connection import connection, transaction

#: How far a witness's clock may be ahead.
CLOCK_SECONDS_MAX = 300.0
#: How often a tile is looked for while the log grows.
ATTEMPTS = 5


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
            found = await published_sql.witnessed_note(conn, region)
            missing = "no witness has cosigned this log yet"
        else:
            found = await published_sql.published_note(conn, region)
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
        for _ in range(ATTEMPTS):
            size, note = await published(vault, region)
            try:
                return await _tile(Tiles(vault, region, size, note), wanted)
            except MissingTileError:
                # As it should be, where the log has grown since, or its records were trimmed.
                if (await published(vault, region))[0] != size:
                    continue
                if wanted.level == BUNDLES and await _is_trimmed(vault, region, wanted):
                    raise NotFoundError("the published log has no such tile any more") from None
                raise
        raise UnavailableError("the log grows as fast as its tiles are read; try again")


async def _tile(tiles: Tiles, wanted: Tile) -> bytes:
    """Return a tile as the log of now has it, cut to what was asked for."""
    now = next(covering(tiles.size, wanted.level, wanted.index * WIDTH), None)
    if now is None or wanted.width > now.width:
        raise NotFoundError("the published log has no such tile")
    if wanted.level == BUNDLES:
        return encode_entries((await tiles.entries(now))[: wanted.width])
    return encode_hashes((await tiles.hashes(now))[: wanted.width])


async def _is_trimmed(vault: Vault, region: str, bundle: Tile) -> bool:
    async with connection(vault.pool) as conn:
        return bundle.index * WIDTH < await trimmed_size(vault, conn, region)


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
    tiles = Tiles(vault, region, size, note)
    proof = [await tiles.hash_of(run) for run in inclusion_runs(index, size)]
    return encode_proof(index, proof, note)


async def _place(vault: Vault, region: str, record: UUID) -> int | None:
    async with connection(vault.pool) as conn:
        index = await published_sql.place_of_record(conn, region, record)
        if index is None and not await published_sql.is_waiting(conn, region, record):
            raise NotFoundError("there is no such record in this log")
    return index


async def consistency(
    vault: Vault, principal: Principal, region: str, old: int, new: int | None
) -> tuple[int, list[bytes]]:
    """Return up to which size, and the proof that the log of size `old` is a prefix of that one."""
    async with recorded(vault, principal, Action.LOG_PROVE, region=served(vault, region)):
        size, note = await published(vault, region)
        new = size if new is None else new
        if not 0 < old <= new <= size:
            raise InvalidRequestError(
                f"sizes must be from 1 to {size}, the size that is published, and ascending"
            )
        tiles = Tiles(vault, region, size, note)
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
            await published_sql.insert_cosignature(conn, region, size, vkey, line, vault.clock())
    return vkey.partition("+")[0]


def _cosigned_by(vault: Vault, note: str) -> tuple[str, int]:
    for vkey in vault.config.witnesses:
        try:
            return vkey, CosignatureVerifier(vkey).verify(note)[1]
        except IntegrityError:
            continue
    raise ForbiddenError("this is no cosignature of a witness that the vault was told of")
