"""
The one place where permission is decided and recorded, below every entrance.

An action opens `recorded(...)` before it touches anything. The intent is durable before the block
runs; a refusal is recorded before it is raised; and when the block ends, however it ends, its
outcome is recorded. Where an action changes rows, it takes the outcome into its own transaction
with `Access.conclude`.

The ways in which a record becomes durable, and what it means when one of them fails:

| record | with what it is committed | where it fails |
|---|---|---|
| intent, refusal | records of other callers: `vault.recorder` | nothing is done: 503 |
| intent of an upload (`begin`) | its announcement: `ANNOUNCE` | nothing is done: 503 |
| intent of a fax's attempt (`begin`) | the attempt: `OPEN` | nothing is done: 503 |
| outcome of rows that one action changes | those rows: `insert_records` | so does the change |
| outcome of an upload, a fax, its end | its row and key: `KEEP`, `TAKE`, `END` | so does the row |
| other outcomes | records of other callers: `vault.recorder` | the worker says `interrupted` |
| progress of an open stream | records of other callers: `vault.recorder` | the stream is cut |
| refusals beyond a limit | counted, one record a minute: `Refused` | counted on, tried again |

The statements in capitals are shared: many callers' items in one commit (`vault.sql.shared`).
Whoever is cancelled before a commit is sent has withdrawn what it would have recorded.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from uuid import UUID

import asyncpg

from keys.damage import DamagedError
from keys.keyring import DataKey, WrappedKey
from vault.context import Vault
from vault.domain.access import (
    NAMING,
    OPENING,
    REACHING,
    STREAMS,
    WORKER_ROLE,
    Action,
    Principal,
    Purpose,
    PurposeError,
)
from vault.domain.decision import (
    HIDDEN,
    Circumstances,
    Decision,
    Reason,
    Relation,
    decide,
    relation_of,
    sees_names,
)
from vault.domain.documents import Custody
from vault.domain.masking import mask_numbers
from vault.domain.records import Record
from vault.errors import (
    ConflictError,
    DatabaseUnavailableError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    RecordsUnavailableError,
    ResidencyError,
    RestrictedError,
    ShreddedError,
    StreamAgeError,
    UnauthenticatedError,
    VaultError,
)
from vault.process.meter import METERED, Exceeded
from vault.process.streams import Stream
from vault.sql import orders as orders_sql
from vault.sql.connection import connection

# ---- What a decision that refuses means to who asked. -------------------------------------------

_REFUSALS: dict[Reason, type[VaultError]] = {
    Reason.PURPOSE_MISSING: PurposeError,
    Reason.REFERENCE_MISSING: PurposeError,
    Reason.REFERENCE: PurposeError,
    Reason.SHREDDED: ShreddedError,
    Reason.NOT_STORED: ConflictError,
    Reason.RESTRICTED: RestrictedError,
    Reason.TRANSFER: ResidencyError,
    Reason.RECORDS: RecordsUnavailableError,
    Reason.ENDED: UnauthenticatedError,
    Reason.AGE: StreamAgeError,
}


def refused_too_often(retry_after_seconds: int) -> LimitError:
    """Return what a refusal raises that is only counted, see `vault/process/meter.py`."""
    error = LimitError("too much of what you asked for was refused; see why, and ask again later")
    error.retry_after_seconds = retry_after_seconds
    return error


def refusal(decision: Decision, over: Exceeded | None) -> VaultError:
    """Return what a refused action raises; what is hidden looks as if there were no such thing."""
    reason, detail = decision.reason, decision.detail
    if reason is Reason.LIMIT and over is not None:
        error = LimitError(detail)
        error.retry_after_seconds = over.retry_after_seconds
        return error
    if reason in HIDDEN and detail is None:
        return NotFoundError()
    return _REFUSALS.get(reason, ForbiddenError)(detail)


# ---- Access. ------------------------------------------------------------------------------------

log = logging.getLogger(__name__)

#: Why an access failed that met something damaged at rest.
DAMAGED = "damaged"

#: Makes an intent durable, together with rows of the action's own.
Begin = Callable[[Record], Awaitable[None]]


@dataclass(slots=True)
class Access:
    """An access that was allowed: its intent, and how it ends."""

    vault: Vault
    intent: Record
    #: Who acts; None is the vault itself, in a record that it makes for many.
    principal: Principal | None = None
    #: Whether file names, which are personal, are shown to who asks.
    names: bool = False
    #: What is looked at again while it flows, for the actions that are streams.
    stream: Stream | None = None
    size_bytes: int | None = None
    concluded: bool = False
    #: Whether a key was unwrapped: until then a refusal takes nothing of the principal's limits.
    opened: bool = False
    renewed_at: float = field(default_factory=time.monotonic)
    #: The same access in the logs of the other regions that it concerns.
    copies: Sequence["Access"] = ()

    @property
    def everywhere(self) -> Sequence["Access"]:
        """The access in each log where it stands."""
        return self, *self.copies

    def conclude(self, *, result: str = "completed", reason: str | None = None) -> Record:
        """Return the outcome in the first log, for the caller to insert in its own transaction."""
        self.concluded = True
        return self._follow("outcome", result=result, reason=reason)

    def conclude_everywhere(self, reason: str | None = None) -> list[Record]:
        """Return the outcome in each log, in the same way."""
        return [access.conclude(reason=reason) for access in self.everywhere]

    def note(self, reason: str) -> Record:
        """Return what is to be said of it before it ends, in the same way."""
        return self._follow("progress", reason=reason)

    async def renew(self) -> None:
        """
        Record how far an open stream has come, if the last record of it is old.

        Called before each piece goes out: where records cannot be written any more, it raises
        `RecordsUnavailableError`, and the stream is cut, as when it was not seen to be allowed
        within its lease.
        """
        if self.stream is not None:
            await self.stream.renew()
        if time.monotonic() - self.renewed_at < self.vault.config.record_renewal_seconds:
            return
        if self.intent.action in OPENING:
            self.vault.log_watch.require(self.intent.region)
        await self.vault.recorder.append(self._follow("progress"))
        self.renewed_at = time.monotonic()

    async def count_order(self, order: UUID | None) -> bool:
        """
        Count that something of an order is opened, against the principal's limits.

        What `recorded` has counted already is not counted twice, and the vault itself, which tells
        nobody, not at all; returns whether this counted it. Raises `LimitError`.
        """
        who = self.principal
        if who is None or who.role == WORKER_ROLE or Action(self.intent.action) in METERED:
            return False
        meter = self.vault.meter
        over = await meter.look(who, Action.ORDER_READ, order)
        if over is not None:
            error = refusal(Decision(False, Reason.LIMIT, over.detail), over)
            error.ground = Reason.LIMIT.value
            raise error
        await meter.count(who, Action.ORDER_READ, order)
        return True

    async def unwrap(self, wrapped: WrappedKey, *, order: UUID | None) -> DataKey:
        """
        Return the data key of a document, a fax or an order: the one way to it, which counts.

        Where the key cannot be had, nothing was opened and nothing is counted. Raises `LimitError`,
        and `StaleScopeError` when the row was read before a seal or a shred.
        """
        counted = await self.count_order(order)
        try:
            key = await self.vault.keyring.open_key(wrapped)
        except BaseException:
            if counted and self.principal is not None:
                self.vault.meter.take_back(self.principal, Action.ORDER_READ, order)
            raise
        self.opened = True
        return key

    def _follow(self, phase: str, **fields: str | None) -> Record:
        return Record(
            id=self.vault.new_id(),
            region=self.intent.region,
            at=self.vault.clock(),
            phase=phase,
            intent=self.intent.id,
            principal=self.intent.principal,
            role=self.intent.role,
            action=self.intent.action,
            document=self.intent.document,
            order=self.intent.order,
            kind=self.intent.kind,
            size_bytes=self.size_bytes,
            **fields,
        )


@asynccontextmanager
async def recorded(
    vault: Vault,
    principal: Principal,
    action: Action,
    *,
    region: str | Sequence[str] | None,
    document: UUID | None = None,
    order: UUID | None = None,
    kind: str | None = None,
    customer: str | None = None,
    custody: Custody | None = None,
    restricted: bool = False,
    every_kind: bool = False,
    purpose: str | None = None,
    reference: str | None = None,
    approved: bool = False,
    unapproved: str | None = None,
    gone: str | None = None,
    begin: Begin | None = None,
    basis: str | None = None,
) -> AsyncIterator[Access]:
    """
    Decide, record the intent, run the block, record the outcome.

    `region` is None when the thing does not exist; of several the first decides, or each where the
    action is one of `REACHING`, and each has the record in its own log, all in one commit.
    `customer` is needed where there is no order, or none yet. `every_kind` says that documents are
    reached which the action does not name. `unapproved` and `gone` are what a refusal says of an
    approval that does not do, and of what has ended. `begin` makes the intent of an allowed action
    durable together with rows of the action's own. Raises what the refusal means, or
    `RecordsUnavailableError`; in both cases the block does
    not run.
    """
    began_at = time.monotonic()
    regions = [region] if isinstance(region, str) else list(region or ())
    region = regions[0] if regions else None
    relation = await _relation(vault, principal, order, customer)
    over = await vault.meter.look(principal, action, order)
    case = Circumstances(
        region=region,
        at=vault.clock(),
        kind=kind,
        relation=relation,
        custody=custody,
        restricted=restricted,
        every_kind=every_kind,
        purpose=purpose,
        reference=reference,
        approved=approved,
        unapproved=unapproved,
        gone=gone,
        to=reader_region(vault, principal),
        exceeded=over.detail if over else None,
    )
    decision = decide(vault.rules, principal, action, case)
    for other in regions[1:] if action in REACHING else ():
        if decision.allow:
            decision = decide(vault.rules, principal, action, replace(case, region=other))
    names = sees_names(vault.rules, principal, case)
    if decision.allow and region and (action in OPENING or (names and action in NAMING)):
        # As when records cannot be written: what nobody can be shown later is not done.
        vault.log_watch.require(region)
    if decision.allow:
        # At once, so that many at the same moment do not all find the last read free.
        await vault.meter.count(principal, action, order)
    intent = Record(
        id=vault.new_id(),
        region=region or vault.config.regions[0],
        at=case.at,
        phase="intent",
        principal=principal.id,
        role=principal.role,
        action=action.value,
        document=document,
        order=order,
        kind=kind,
        # What is not a purpose may be anything, a name too: it is not written down.
        purpose=purpose if purpose in _ALL_PURPOSES else None,
        reference=mask_numbers(reference) if decision.allow and reference else None,
        region_to=case.to if action in OPENING and region else None,
        basis=basis or decision.basis,
        decision="allow" if decision.allow else "deny",
        reason=decision.reason.value,
    )
    if not decision.allow and (wait := vault.refused.admit(principal, action, intent.region)):
        # Counted, and recorded with others like it: refusals must not fill the log.
        raise refused_too_often(wait)
    copies = [replace(intent, id=vault.new_id(), region=other) for other in regions[1:]]
    try:
        if begin and decision.allow:
            await _make_durable(intent, begin)
            await vault.recorder.append_many(copies)
        else:
            await vault.recorder.append_many([intent, *copies])
    except BaseException:
        if decision.allow:
            vault.meter.take_back(principal, action, order)
        raise
    if not decision.allow:
        raise refusal(decision, over)
    access = Access(
        vault,
        intent,
        principal,
        names=names,
        copies=[Access(vault, copy) for copy in copies],
    )
    if action in STREAMS:
        access.stream = Stream(
            vault.streams, principal, action, document, case, begun_at=began_at, seen_at=began_at
        )
    try:
        async with _watched(access):
            yield access
    except BaseException as error:
        if not access.opened:
            vault.meter.take_back(principal, action, order)
        if isinstance(error, DamagedError):
            vault.keyring.met.note(error)
        await _conclude(access, *_how(error, access.stream))
        raise
    await _conclude(access, "completed", None)


@asynccontextmanager
async def _cutting(stream: Stream) -> AsyncIterator[None]:
    """Run the block until the stream is cut; then raise why."""
    try:
        async with stream:
            yield
    except TimeoutError:
        if stream.ended is None:
            raise
        error = refusal(stream.ended.decision, stream.ended.over)
        error.ground = stream.ended.decision.reason.value
        raise error from None


def _watched(access: Access) -> AbstractAsyncContextManager[object]:
    return _cutting(access.stream) if access.stream is not None else nullcontext()


async def _make_durable(intent: Record, begin: Begin) -> None:
    try:
        await begin(intent)
    except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
        raise RecordsUnavailableError from error


_ALL_PURPOSES = frozenset(Purpose)


def own_intent(
    vault: Vault,
    action: Action,
    region: str,
    *,
    reason: str,
    document: UUID | None = None,
    order: UUID | None = None,
    kind: str | None = None,
    reference: str | None = None,
) -> Record:
    """Return the intent of what the vault does by itself, for who records many in one commit."""
    return Record(
        id=vault.new_id(),
        region=region,
        at=vault.clock(),
        phase="intent",
        principal=WORKER_ROLE,
        role=WORKER_ROLE,
        action=action.value,
        document=document,
        order=order,
        kind=kind,
        reference=reference,
        decision="allow",
        reason=reason,
    )


def served(vault: Vault, region: str) -> str | None:
    """Return the region that somebody names; None where it is not served, which is refused."""
    return region if region in vault.config.regions else None


def own_regions(vault: Vault, principal: Principal) -> list[str]:
    """Return the regions, of those that are served, that are the principal's."""
    return sorted(principal.regions & set(vault.config.regions))


def reader_region(vault: Vault, principal: Principal) -> str:
    """Return where what the principal reads arrives: what was granted says so, never a request."""
    if principal.located is not None:
        return principal.located
    if len(principal.regions) == 1:
        return next(iter(principal.regions))
    return vault.config.located or vault.config.regions[0]


async def _relation(
    vault: Vault, principal: Principal, order: UUID | None, customer: str | None
) -> Relation:
    """Return how the order stands to who asks; it is looked up only for who has some customers."""
    if order is None and customer is None:
        return Relation.NONE
    if order is not None and customer is None and principal.customers is not None:
        async with connection(vault.pool) as conn:
            customer = await orders_sql.customer_of(conn, order)
    return relation_of(principal, customer)


def _how(error: BaseException, stream: Stream | None) -> tuple[str, str | None]:
    if stream is not None and stream.ended is not None:
        return "aborted", stream.ended.decision.reason
    if isinstance(error, asyncio.CancelledError | GeneratorExit | ConnectionError):
        return "aborted", "disconnected"
    if isinstance(error, DamagedError):
        return "failed", DAMAGED
    ground = error.ground if isinstance(error, VaultError) else None
    return "failed", ground or type(error).__name__


async def _conclude(access: Access, result: str, reason: str | None) -> None:
    """Record outcomes; what cannot be is left for the worker, which says `interrupted`."""
    open_ = [one for one in access.everywhere if not one.concluded]
    if not open_:
        return
    records = [one.conclude(result=result, reason=reason) for one in open_]
    try:
        await asyncio.shield(access.vault.recorder.append_many(records))
    except RecordsUnavailableError:
        log.warning("the outcome of intent %s could not be recorded", access.intent.id)
