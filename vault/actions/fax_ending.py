"""
Bring a fax to its end: delivered, failed or expired, and beyond use in the same transaction.

Many that end at the same time share a transaction, so that a burst locks the tree once. Each is
safe to repeat: a gateway that lost the answer asks again and gets the same receipt.
"""

from collections.abc import Callable
from uuid import UUID

from vault.actions.access import Access, own_intent, recorded
from vault.actions.expiry_limits import check_bulk_of_faxes, overdue_before, trusted_time
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.faxes import KIND, Fax, State, check_facts, check_transition, next_attempt_at
from vault.domain.records import Record
from vault.errors import ConflictError, NotFoundError
from vault.sql import fax_intake as fax_intake_sql
from vault.sql import faxes as faxes_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.faxes import ALREADY, Ending, end_many

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
    looked = await vault.fax_finder.submit(identity)
    async with recorded(
        vault,
        principal,
        Action.FAX_FAIL,
        region=looked.region,
        document=identity,
        kind=KIND,
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
    looked = await vault.fax_finder.submit(identity)
    async with recorded(
        vault, principal, action, region=looked.region, document=identity, kind=KIND
    ) as access:
        access.size_bytes = looked.size_bytes
        ended = await vault.fax_ender.submit(
            Ending(identity, state, result, vault.clock(), _outcome(access))
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
    Shred every fax whose time in custody is over, whatever became of it; returns how many.

    What is due is derived from the rows and checked again under their locks. Raises `ClockError` or
    `BulkExpiryError` where nothing may go by its time.
    """
    async with transaction(vault.pool) as conn:
        now = await trusted_time(vault, conn, region)
        await check_bulk_of_faxes(vault, conn, region, now)
        before = overdue_before(vault.config, now)
        found = await fax_intake_sql.overdue(conn, region, before, EXPIRE_BATCH)
    if not found:
        return 0
    intents = [
        own_intent(vault, Action.FAX_EXPIRE, region, reason="retention", document=fax, kind=KIND)
        for fax in found
    ]
    await vault.recorder.append_many(intents)
    accesses = [Access(vault, intent) for intent in intents]
    endings = [
        Ending(identity, State.EXPIRED, OVERDUE, vault.clock(), _outcome(access))
        for identity, access in zip(found, accesses, strict=True)
    ]
    async with connection(vault.pool) as conn:
        await end_many(vault.keyring, conn, endings)
    # Somebody else has it, or ended it meanwhile: this intent had no effect.
    late = [access.conclude(reason=ALREADY) for access in accesses if not access.concluded]
    await vault.recorder.append_many(late)
    return len(found) - len(late)
