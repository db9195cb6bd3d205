"""Verify the access log, and close what a dead process left open."""

import base64
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from keys.cosignature import CosignatureVerifier
from keys.errors import IntegrityError
from keys.handover import Mark
from keys.note import AnyVerifier
from vault.actions.access import Access, recorded, served
from vault.actions.fax_sweep import purge_interrupted
from vault.actions.published import trimmed_size
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.checkpoint import Checkpoint, open_checkpoint, origin
from vault.domain.merkle import EMPTY_ROOT
from vault.domain.records import canonical_bytes
from vault.domain.verify import INTERRUPTED, LogVerifier, Verdict
from vault.errors import NotFoundError
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql.connection import Connection, connection, transaction

#: An intent that has no outcome after so long belonged to a process that died.
INTERRUPTED_SECONDS = 3 * 3600.0
INTERRUPTED_BATCH = 500
EARLIER_CHECKPOINTS_MAX = 1000


async def latest_checkpoint(vault: Vault, principal: Principal, region: str) -> str:
    """Return the newest signed checkpoint of a region's log."""
    async with (
        recorded(vault, principal, Action.LOG_READ, region=served(vault, region)),
        connection(vault.pool) as conn,
    ):
        signed = await log_sql.latest_checkpoint(conn, region)
    if signed is None:
        raise NotFoundError("the log has no checkpoint yet; try again in a second")
    return signed.note


async def verify_region(
    vault: Vault, principal: Principal, region: str, *, held: Sequence[str] = ()
) -> Verdict:
    """
    Check every record against the newest checkpoint, and that against the ones before it.

    `held` are signed checkpoints that the caller kept from before: whoever owns the database can
    take away its records together with its checkpoints, and only these tell.
    """
    async with (
        recorded(vault, principal, Action.LOG_READ, region=served(vault, region)),
        transaction(vault.pool) as conn,
    ):
        await log_sql.look_only(conn)
        notes = await log_sql.checkpoint_notes(conn, region, EARLIER_CHECKPOINTS_MAX)
        if not notes and not held:
            raise NotFoundError("the log has no checkpoint yet; try again in a second")
        kept, forged = _open_all(vault, region, notes)
        shown, strange = _open_all(vault, region, held)
        newest = kept[0] if kept else Checkpoint(origin(region), 0, EMPTY_ROOT)
        marks = [_of_mark(mark) for mark in vault.signer.trust.marks]
        minimum = await _minimum(vault, conn, region)
        verifier = LogVerifier(
            newest,
            [*kept[1:], *shown, *(mark for mark in marks if mark.origin == newest.origin)],
            cosigned=await _cosigned(vault, conn, region),
            minimum=minimum or 0,
            waiting=await log_sql.waiting(conn, region),
            waiting_seconds_max=vault.config.record_publish_seconds_max,
        )
        if notes and not _counts(vault, region, notes[0]):
            what = "the newest checkpoint is signed by a key that had ceased to sign before"
            verifier.offend("intact", newest.size, what)
        if minimum is None:
            verifier.offend("intact", 0, "what says that records were trimmed is not signed")
        async for leaf in log_sql.sequenced(conn, region):
            data = canonical_bytes(leaf.record) if leaf.record else None
            if not verifier.add(leaf.index, data, leaf.hash):
                break
        if forgotten := await log_sql.forgotten(conn, region):
            verifier.offend(
                "complete", newest.size, f"{forgotten} records have no place in the log"
            )
    _note_checkpoints(verifier, newest.size, forged=forged, strange=strange, lost=not notes)
    return verifier.verdict()


async def _minimum(vault: Vault, conn: Connection, region: str) -> int | None:
    """Return below which index records may be gone; None when what says so is forged."""
    try:
        return await trimmed_size(vault, conn, region)
    except IntegrityError:
        return None


async def _cosigned(vault: Vault, conn: Connection, region: str) -> list[Checkpoint] | None:
    """Return the checkpoints that witnesses of the configuration cosigned; None without any."""
    if not vault.config.witnesses:
        return None
    witnesses = [CosignatureVerifier(vkey) for vkey in vault.config.witnesses]
    notes = await published_sql.cosigned_notes(conn, region, EARLIER_CHECKPOINTS_MAX)
    valid = [note for note in notes if any(map(partial(_cosigned_by, note), witnesses))]
    return _open_all(vault, region, valid)[0]


def _cosigned_by(note: str, witness: CosignatureVerifier) -> bool:
    with contextlib.suppress(IntegrityError):
        witness.verify(note)
        return True
    return False


def _of_mark(mark: Mark) -> Checkpoint:
    return Checkpoint(mark.origin, mark.size, base64.b64decode(mark.root))


def _counts(vault: Vault, region: str, note: str) -> bool:
    """Whether a key signed the checkpoint that counts for one of its size."""
    with contextlib.suppress(IntegrityError):
        open_checkpoint(note, vault.signer, region)
        return True
    return False


def _open_all(vault: Vault, region: str, notes: Sequence[str]) -> tuple[list[Checkpoint], int]:
    """
    Return the checkpoints that this vault ever signed, and how many it did not.

    By whichever of its keys: they are only held against the log, and make it believed no more.
    """
    opened, ever = list[Checkpoint](), AnyVerifier(vault.signer.trust.keys)
    for note in notes:
        with contextlib.suppress(IntegrityError):
            opened.append(open_checkpoint(note, ever, region))
    return opened, len(notes) - len(opened)


def _note_checkpoints(
    verifier: LogVerifier, size: int, *, forged: int, strange: int, lost: bool
) -> None:
    """Add what is seen only beside the records: checkpoints that are none."""
    if lost:
        verifier.offend("intact", 0, "the vault has no checkpoint any more")
    if forged:
        what = f"{forged} of the vault's checkpoints are not signed by its key"
        verifier.offend("intact", size, what)
        verifier.offend("consistent", size, what)
    if strange:
        what = f"{strange} of the checkpoints you hold are not signed by this vault"
        verifier.offend("consistent", size, what)


async def close_interrupted(vault: Vault, region: str) -> int:
    """
    Record as `interrupted` the outcome of intents that nobody is left to conclude.

    Those of faxes whose objects cannot be purged stay open, and hold up no other; raises why.
    """
    # Longer than any upload may take; a read that goes on even longer concludes after all.
    config = vault.config
    longest = max(config.receiving_seconds_max, config.fax_receive_seconds_max)
    patience = max(INTERRUPTED_SECONDS, 2 * longest)
    before = vault.clock() - timedelta(seconds=patience)
    async with connection(vault.pool) as conn:
        found = await log_sql.unfinished_intents(conn, region, before, INTERRUPTED_BATCH)
    if not found:
        return 0
    # Before the lock is taken, so that nobody waits for a slow bucket.
    left, failures = await purge_interrupted(vault, region, found)
    purged = {intent.id for intent in found if intent.document not in left}
    async with transaction(vault.pool) as conn:
        # Two at once would conclude an intent twice.
        if not await log_sql.try_closer(conn, region):
            return 0
        again = await log_sql.unfinished_intents(conn, region, before, INTERRUPTED_BATCH)
        outcomes = [
            Access(vault, intent).conclude(result=INTERRUPTED)
            for intent in again
            if intent.id in purged
        ]
        await log_sql.insert_records(conn, outcomes)
    if failures:
        raise failures[0]
    return len(outcomes)
