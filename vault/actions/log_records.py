"""Verify the access log, and close what a dead process left open."""

import base64
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile

from keys.errors import IntegrityError
from keys.notes.note import AnyVerifier, CosignatureVerifier
from keys.notes.signing import Mark
from vault.actions.access import Access, own_regions, recorded, served
from vault.actions.bucket import MINIMUM, PREFIX, purge_many, put_note
from vault.actions.expire import trusted_time
from vault.actions.fax_delivery import purge_interrupted
from vault.actions.keys import worker
from vault.actions.log_prove import published
from vault.actions.log_publish import trimmed_size
from vault.actions.log_tiles import Tiles
from vault.actions.once import decode_cursor, encode_cursor
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.checkpoint import Checkpoint, encode, minimum, open_checkpoint, origin
from vault.domain.merkle import EMPTY_ROOT
from vault.domain.records import Found, Wanted, canonical_bytes, hands_out, went_out
from vault.domain.text import said_time
from vault.domain.tiles import BUNDLES, WIDTH, Tile
from vault.domain.verify import INTERRUPTED, LogVerifier, Verdict
from vault.errors import InvalidRequestError, NotFoundError
from vault.sql import access as access_sql
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import log_search as search_sql
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


# ---- Search the access log: what is found has the names of then, and says what became of each
# reading.
#
# A question that nothing can answer is refused with a sentence: an empty list would be taken for
# the word that nobody did it.

#: An id has its kind before it; a label or a name that is searched for has not.
_KIND = ":"
#: The areas of actions upon what is stored.
_STORED = frozenset({"order", "document", "fax"})


async def list_records(
    vault: Vault,
    principal: Principal,
    *,
    region: str | None,
    wanted: Wanted,
    cursor: str | None,
    limit: int,
) -> tuple[list[Found], str | None]:
    """
    Return a page of a region's records, newest first, and the cursor of the next one.

    One that waits, for its place or to be published, is among them and marked. Raises
    `InvalidRequestError` or `NotFoundError` for a question that no record could answer.
    """
    mine = own_regions(vault, principal)
    unclear = region is None and len(mine) > 1
    if region is None and mine:
        region = mine[0]
    before = decode_cursor(cursor) if cursor else None
    known = served(vault, region) if region else None
    async with (
        recorded(
            vault,
            principal,
            Action.LOG_READ,
            region=known,
            document=wanted.document,
            order=wanted.order,
        ) as access,
        connection(vault.pool) as conn,
    ):
        if unclear:
            raise InvalidRequestError(f"say which region: {', '.join(mine)}")
        _check_times(wanted, vault.clock())
        place = known or ""
        wanted = await _by_id(conn, wanted)
        found = await search_sql.page(
            conn, place, wanted, before=before, limit=limit + 1, without=access.intent.id
        )
        # Looks into the log name what was looked for, and are no sign that it ever was.
        only_looks = all(item.record.action == Action.LOG_READ for item in found)
        if before is None and only_looks and wanted.action != Action.LOG_READ:
            await _explain_nothing(conn, mine, place, wanted)
        shown = await _told(conn, place, found[:limit])
    if len(found) <= limit:
        return shown, None
    last = shown[-1].record
    return shown, encode_cursor(last.at, last.id)


def _check_times(wanted: Wanted, now: datetime) -> None:
    if wanted.since is not None and wanted.since > now:
        raise InvalidRequestError(
            f"from is in the future: nothing is recorded yet after {said_time(now)}"
        )
    if wanted.since is not None and wanted.until is not None and wanted.until <= wanted.since:
        raise InvalidRequestError("to must be later than from: no record lies between them")


async def _by_id(conn: Connection, wanted: Wanted) -> Wanted:
    """Return the question about an id, where it names a principal by a label or a name."""
    said = wanted.principal
    if said is None or _KIND in said:
        return wanted
    called = await access_sql.names_called(conn, said)
    if len(called) > 1:
        raise InvalidRequestError(
            f"{len(called)} principals were called so; ask for one of {', '.join(called)}"
        )
    return replace(wanted, principal=called[0]) if called else wanted


async def _explain_nothing(
    conn: Connection, mine: Sequence[str], region: str, wanted: Wanted
) -> None:
    """Raise why nothing can be found: what is asked for lies elsewhere, or never was."""
    for what, identity in (("document", wanted.document), ("order", wanted.order)):
        if identity is None or await search_sql.is_recorded(conn, region, what, identity):
            continue
        place = await search_sql.place_of(conn, what, identity)
        if place == region:
            continue
        if place in mine:
            raise NotFoundError(f"this {what} lies in {place}: ask the log of that region")
        raise NotFoundError(f"there never was this {what}, and nobody asked for it in {region}")
    who = wanted.principal
    if who is not None and not await search_sql.was_ever(conn, who):
        raise NotFoundError(
            "there never was this principal: name a token's label, a person, or an id as "
            "token:…, person:… or operator:…"
        )
    area = (wanted.action or "").partition(".")[0]
    about_content = wanted.purpose is not None or wanted.transfers or area in _STORED
    if about_content and not await search_sql.ever_stored(conn, region):
        raise NotFoundError(f"no order, document or fax was ever in {region}: nothing was read")


async def _told(conn: Connection, region: str, found: Sequence[Found]) -> list[Found]:
    """Return what was found with the names of then, and with what became of each reading."""
    names = await access_sql.names_of(conn, {item.record.principal for item in found})
    intents = [item.record for item in found if hands_out(item.record)]
    followers = await search_sql.followers(conn, region, intents)
    return [
        replace(
            item,
            name=names.at(item.record.principal, item.record.at),
            went_out=went_out(item.record, followers.get(item.record.id, ()))
            if hands_out(item.record)
            else None,
        )
        for item in found
    ]


# ---- Trim: when the log's own retention is over, drop what records say and keep their hashes.
#
# The signed statement of how far comes first, in the bucket and in the transaction that drops the
# bodies, so that a verifier can tell what was trimmed from what was taken away. Whole bundles go
# at once; a crash at any point leaves work that the next look finds again.

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
