"""Bring a fax to its end: relayed, fetched or expired, it is put beyond use and has a receipt."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from keys.damage import DamagedError
from keys.errors import KeysError
from keys.stream import DataKey
from vault.actions.access import Access, own_intent, own_regions, recorded
from vault.actions.bucket import purge_many
from vault.actions.expire import GROUND, check_bulk_of_faxes, trusted_time
from vault.actions.keys import worker
from vault.actions.policy import SeenFax, fax_custody_of, seen_faxes
from vault.actions.read import Outgoing, Stored, open_metadata, open_object, without_key
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Action, Principal, Purpose
from vault.domain.documents import FAX, Custody, object_name
from vault.domain.fax_mail import compose
from vault.domain.faxes import (
    GONE,
    Channel,
    Direction,
    Fax,
    Numbers,
    State,
    check_facts,
    check_transition,
    clean_facts,
    decode_numbers,
    next_attempt_at,
)
from vault.domain.records import Record, encode_receipt, receipt_of
from vault.errors import (
    ConflictError,
    LeftBehindError,
    MailDeferredError,
    MailRefusedError,
    NotFoundError,
    ShreddedError,
    UnavailableError,
    VaultError,
)
from vault.sql import fax_intake as fax_intake_sql
from vault.sql import faxes as faxes_sql
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.faxes import ALREADY, END, LOOK_AT, OPEN, Ending, Opened, Opening, end_many

# ---- Bring a fax to its end: delivered, failed or expired, and beyond use in the same
# transaction.
#
# Many that end at the same time share a transaction, so that a burst locks the tree once. Each is
# safe to repeat: a gateway that lost the answer asks again and gets the same receipt.

EXPIRE_BATCH = 500
#: The result in the receipt of a fax that nobody delivered.
OVERDUE = "not delivered in time"
#: The reason of an outcome after which the fax waits for another attempt.
RETRY = "queued"
#: The result of a fax that waits, and does not open.
DAMAGED = "damaged: it does not open; portvault repair says what to do"


async def deliver_fax(
    vault: Vault, principal: Principal, identity: UUID, *, result: str | None = None
) -> Fax:
    """Acknowledge the delivery: the fax is shredded; safe to repeat."""
    return await _end(vault, principal, identity, Action.FAX_DELIVER, State.DELIVERED, result)


async def fail_fax(
    vault: Vault, principal: Principal, identity: UUID, *, reason: str, final: bool = False
) -> Fax:
    """
    Say that an attempt failed: the fax waits for the next one, or ends and is shredded if `final`.

    `reason` is the gateway's or the next hop's word and stands in the receipt, numbers masked.
    """
    masked = check_facts({"message": reason})["message"]
    if final:
        return await _end(vault, principal, identity, Action.FAX_FAIL, State.FAILED, masked)
    looked = await vault.committer.submit(LOOK_AT, identity)
    async with recorded(
        vault,
        principal,
        Action.FAX_FAIL,
        region=looked.region,
        document=identity,
        kind=FAX,
    ) as access:
        async with transaction(vault.pool) as conn:
            locked = await faxes_sql.find(conn, identity, lock=True)
            if locked is None:
                raise NotFoundError
            check_transition(locked.state, State.QUEUED)
            queued = await _queue(vault, conn, locked, masked)
            await log_sql.insert_records(conn, [access.conclude(reason=RETRY)])
        return queued


async def queue_damaged(vault: Vault, identity: UUID) -> None:
    """Have a fax that does not open wait again, and say why: the attempt has ended."""
    async with transaction(vault.pool) as conn:
        locked = await faxes_sql.find(conn, identity, lock=True)
        if locked is not None and locked.state is State.DELIVERING:
            await _queue(vault, conn, locked, DAMAGED)


async def _queue(vault: Vault, conn: Connection, fax: Fax, result: str) -> Fax:
    at = next_attempt_at(
        vault.clock(),
        fax.attempts,
        first_seconds=vault.config.fax_retry_seconds,
        last_seconds=vault.config.fax_retry_seconds_max,
    )
    queued = await faxes_sql.queue(conn, fax.id, result, at)
    if queued is None:
        raise ConflictError
    return queued


async def _end(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    action: Action,
    state: State,
    result: str | None,
) -> Fax:
    looked = await vault.committer.submit(LOOK_AT, identity)
    async with recorded(
        vault, principal, action, region=looked.region, document=identity, kind=FAX
    ) as access:
        access.size_bytes = looked.size_bytes
        ended = await vault.committer.submit(
            END, Ending(vault.keyring, identity, state, result, vault.clock(), _outcome(access))
        )
        return _require(access, ended, state)


def _outcome(access: Access) -> Callable[[str | None], Record]:
    return lambda reason: access.conclude(reason=reason)


def _require(access: Access, ended: Fax | None, state: State) -> Fax:
    """Return the fax if it ended so; what it had ended as before is the refusal."""
    if ended is None:
        access.concluded = False
        raise NotFoundError
    if ended.state is not state:
        access.concluded = False
        check_transition(ended.state, state)
    return ended


async def expire_faxes(vault: Vault, region: str) -> int:
    """
    Shred a batch of faxes whose time in custody is over, whatever became of them; returns how many.

    The retention policy in force says how long that is, also for faxes that came under an earlier
    one. What is due is derived from the rows and checked again under their locks; where another
    policy is put in force meanwhile, nothing is shredded by the earlier one. Raises `ClockError` or
    `BulkExpiryError` where nothing may go by its time.
    """
    async with transaction(vault.pool) as conn:
        now = await trusted_time(vault, conn, region)
        await check_bulk_of_faxes(vault, conn, region, now)
        custody = await fax_custody_of(vault.config, conn, region)
        found = await fax_intake_sql.overdue(conn, region, now - custody.keep_max, EXPIRE_BATCH)
    if not found:
        return 0
    intents = [
        own_intent(
            vault,
            Action.FAX_EXPIRE,
            region,
            reason=GROUND,
            document=fax,
            kind=FAX,
            reference=f"policy/{custody.version}",
        )
        for fax in found
    ]
    await vault.recorder.append_many(intents)
    accesses = [Access(vault, intent) for intent in intents]
    endings = [
        Ending(vault.keyring, identity, State.EXPIRED, OVERDUE, vault.clock(), _outcome(access))
        for identity, access in zip(found, accesses, strict=True)
    ]
    async with transaction(vault.pool) as conn:
        await retention_sql.freeze_policy(conn)
        if (await fax_custody_of(vault.config, conn, region)).version == custody.version:
            await end_many(conn, endings)
    # Somebody else has it, or ended it, or another policy is in force: the intent had no effect.
    late = [access.conclude(reason=ALREADY) for access in accesses if not access.concluded]
    await vault.recorder.append_many(late)
    return len(found) - len(late)


# ---- Look at faxes and fetch them: a fetch is an attempt to deliver, and recorded as such. ------


@dataclass(frozen=True, slots=True)
class OpenFax:
    """A fax that is being fetched: row, numbers in clear, receipt, and bytes as they are opened."""

    fax: Fax
    numbers: Numbers
    receipt: str
    chunks: Outgoing


@asynccontextmanager
async def open_fax(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    *,
    purpose: str | None = Purpose.DELIVER_FAX,
    alone: bool = False,
) -> AsyncIterator[OpenFax]:
    """
    Open a fax for delivery, which begins with this; the outcome says how many bytes went out.

    Raises `ConflictError` when it is to be opened `alone` and another attempt is under way.
    """
    looked = await vault.committer.submit(LOOK_AT, identity)
    attempt = _Attempt(vault, identity, alone=alone)
    async with recorded(
        vault,
        principal,
        Action.FAX_READ,
        region=looked.region,
        document=identity,
        kind=FAX,
        custody=looked.custody,
        gone=GONE.get(looked.state) if looked.state else None,
        purpose=purpose,
        begin=attempt.begin,
    ) as access:
        try:
            fax, key = await attempt.key(access)
            numbers = open_metadata(key, Stored.of(fax), decode_numbers)
            async with open_object(vault, Stored.of(fax), key) as pieces:
                chunks = Outgoing(access, pieces)
                try:
                    receipt = encode_receipt(receipt_of(access.intent))
                    yield OpenFax(fax, numbers, receipt, chunks)
                finally:
                    await chunks.aclose()
        except DamagedError:
            # Where that cannot be said now, the attempt runs out.
            with suppress(VaultError):
                await queue_damaged(vault, identity)
            raise


class _Attempt:
    """An attempt to deliver, which begins in the commit that makes its intent durable."""

    def __init__(self, vault: Vault, fax: UUID, *, alone: bool) -> None:
        self._vault, self._fax, self._alone = vault, fax, alone
        self._now = vault.clock()
        self._until = self._now + timedelta(seconds=vault.config.fax_attempt_seconds_max)
        self._begun: Opened | None = None

    async def begin(self, intent: Record) -> None:
        """Begin, unless somebody else has the fax now; for the `begin` of `recorded`."""
        opened = await self._open(intent)
        if not opened.left_out:
            self._begun = opened

    @retried
    async def key(self, access: Access) -> tuple[Fax, DataKey]:
        """Return the fax and its key; raises why the attempt may not begin."""
        opened, self._begun = self._begun or await self._open(None), None
        if opened.fax is None or opened.key is None:
            if opened.fax is None or opened.fax.custody is not Custody.STORED:
                gone = GONE.get(opened.fax.state) if opened.fax else None
                raise ShreddedError(gone or "the fax was shredded")
            if self._alone and opened.fax.next_attempt_at > self._now:
                raise ConflictError("another attempt to deliver this fax is under way")
            raise without_key(opened.fax)
        # The attempt is ours by now, whatever becomes of its key.
        self._alone = False
        return opened.fax, await access.unwrap(opened.key, order=None)

    async def _open(self, intent: Record | None) -> Opened:
        return await self._vault.committer.submit(
            OPEN, Opening(self._fax, self._now, self._until, self._alone, intent)
        )


async def describe_fax(vault: Vault, principal: Principal, identity: UUID) -> SeenFax:
    """Return a fax as it stands: while it lives and, as its receipt, afterwards."""
    async with connection(vault.pool) as conn:
        fax = await faxes_sql.find(conn, identity)
        seen = await seen_faxes(vault.config, conn, [fax] if fax else [])
    async with recorded(
        vault,
        principal,
        Action.FAX_DESCRIBE,
        region=fax.region if fax else None,
        document=identity,
        kind=FAX,
    ):
        if not seen:
            raise NotFoundError
        return seen[0]


async def list_faxes(
    vault: Vault,
    principal: Principal,
    *,
    direction: Direction | None = None,
    states: Sequence[State] | None = None,
    channel: Channel | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[SeenFax]:
    """Return a page of the faxes of the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    async with (
        recorded(vault, principal, Action.FAX_DESCRIBE, region=mine, kind=FAX),
        connection(vault.pool) as conn,
    ):
        found = await faxes_sql.page(
            conn,
            mine,
            direction=direction,
            states=states,
            channel=channel,
            before=before,
            limit=limit,
        )
        return await seen_faxes(vault.config, conn, found)


# ---- Sweep up what is left of faxes: receipts whose time is over, and what was never taken. -----

RECEIPTS_BATCH = 5000


async def forget_receipts(vault: Vault, region: str) -> int:
    """Delete receipts that are older than call detail records may be; returns how many."""
    async with transaction(vault.pool) as conn:
        now = await trusted_time(vault, conn, region)
        before = now - timedelta(days=vault.config.fax_receipt_days_max)
        return await fax_intake_sql.delete_receipts(conn, region, before, RECEIPTS_BATCH)


async def purge_interrupted(
    vault: Vault, region: str, intents: Sequence[Record]
) -> tuple[set[UUID], list[VaultError]]:
    """
    Purge what faxes put into the store whose reception nobody is left to conclude.

    Returns the faxes whose objects may still be there, and what failed.
    """
    begun = {
        intent.document
        for intent in intents
        if intent.action == Action.FAX_RECEIVE and intent.document is not None
    }
    if not begun:
        return set(), []
    async with connection(vault.pool) as conn:
        begun -= await fax_intake_sql.existing(conn, list(begun))
    gone, failures = await purge_many(vault.stores[region], map(object_name, begun))
    return {fax for fax in begun if object_name(fax) not in gone}, failures


# ---- The relay: deliver inbound faxes by mail, to where the operator's routes say. --------------
#
# A fax is claimed for a time, read into memory, made a PDF and handed to the next hop; its 250
# counts as delivery. A crash between the 250 and its record leaves a claim that runs out: the fax
# is sent again with the same Message-ID, so it is the recipient's mailbox that may see it twice,
# and never nobody who sees it.

#: How often the fax is in memory while it is sent: itself, as PDF, in base64, and as a mail.
COPIES = 5
#: Whose turn it is in the sandbox when a fax is made ready to be sent.
RELAY = "relay"
log = logging.getLogger(__name__)

#: How often the record of a delivery is tried before the claim is left to run out.
RECORD_TRIES, RECORD_PAUSE_SECONDS = 5, 1.0


async def relay_faxes(vault: Vault, region: str) -> int:
    """Try what is due, some at once; returns how many."""
    if not vault.fax_routes:
        return 0
    now = vault.clock()
    async with connection(vault.pool) as conn:
        faxes = await fax_intake_sql.claim(
            conn,
            region,
            Channel.MAIL,
            now=now,
            until=now + timedelta(seconds=vault.config.fax_attempt_seconds_max),
            limit=vault.config.fax_relays_max,
        )
    async with asyncio.TaskGroup() as group:
        for fax in faxes:
            group.create_task(_relay(vault, fax))
    return len(faxes)


async def _relay(vault: Vault, identity: UUID) -> None:
    """Try one fax; whatever goes wrong with it keeps no other from being tried."""
    try:
        await _try(vault, identity)
    except Exception as error:  # noqa: BLE001 - the others are on their way meanwhile
        # Its claim runs out, and it is tried again. The error may quote what was being sent.
        log.error("fax %s could not be tried: %s", identity, type(error).__name__)


async def _try(vault: Vault, identity: UUID) -> None:
    """Send one fax, and record what became of it."""
    try:
        said = await _send(vault, identity)
    except (ShreddedError, LeftBehindError, NotFoundError):
        return
    except MailRefusedError as error:
        await _fail(vault, identity, str(error), final=True)
    except DamagedError:
        await _fail(vault, identity, DAMAGED, final=False)
    except (VaultError, KeysError) as error:
        log.info("fax %s is tried again: %s", identity, type(error).__name__)
        reason = str(error) if isinstance(error, MailDeferredError) else type(error).__name__
        await _fail(vault, identity, reason, final=False)
    else:
        await _deliver(vault, identity, said)


async def _send(vault: Vault, identity: UUID) -> str:
    # Until the next hop has it, the fax is open: what ends meanwhile is not sent on.
    with vault.memory.share() as share:
        async with open_fax(vault, worker(vault), identity) as opened:
            share.grow(opened.fax.size_bytes * COPIES)
            data = b"".join([chunk async for chunk in opened.chunks])
            return await _mail(vault, opened, data)


async def _mail(vault: Vault, opened: OpenFax, data: bytes) -> str:
    fax, numbers = opened.fax, opened.numbers
    route = vault.fax_routes.find(numbers.callee)
    if route is None:
        raise MailDeferredError("its number has no route any more")
    # What is mailed was written here, page by page, whatever a sender put into it.
    data = await vault.sandbox.convert(
        data, fax.media_type, pages_max=vault.config.fax_pages_max, sender=RELAY
    )
    letter = compose(
        fax,
        numbers,
        data,
        sender=vault.config.fax_mail_from,
        recipient=route.address,
        now=vault.clock(),
    )
    return await vault.mailer.send(
        route, vault.fax_routes.domain(route.domain), str(fax.id), letter
    )


async def _deliver(vault: Vault, identity: UUID, said: str) -> None:
    # A crash here: see above.
    for _ in range(RECORD_TRIES):
        try:
            await deliver_fax(vault, worker(vault), identity, result=said)
            return
        except UnavailableError:
            await asyncio.sleep(RECORD_PAUSE_SECONDS)
        except (ConflictError, NotFoundError):
            # Its time was over while it was on its way.
            return


async def _fail(vault: Vault, identity: UUID, reason: str, *, final: bool) -> None:
    said = clean_facts({"message": reason}).get("message", "failed")
    try:
        await fail_fax(vault, worker(vault), identity, reason=said, final=final)
    except VaultError as error:
        # The claim runs out, and the fax is tried again.
        log.info("the failure of fax %s is not recorded: %s", identity, type(error).__name__)
