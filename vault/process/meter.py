"""What each principal reads and is refused, counted: a stolen token does not empty the vault."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from vault.config.settings import Config
from vault.config.webhooks import deliveries
from vault.domain.access import WORKER_ROLE, Action, Principal, Role
from vault.domain.limits import (
    NO_ORDER,
    Limits,
    Usage,
    bucket_of,
    exceeded,
    first_counting,
    is_notable,
    retry_after_seconds,
)
from vault.domain.records import Record
from vault.domain.signals import Signal, SignalType, limit_signal
from vault.errors import DatabaseUnavailableError, RecordsUnavailableError
from vault.process.outages import Outages, reason_of
from vault.sql import access as access_sql
from vault.sql import signals as signals_sql
from vault.sql.connection import Pool, connection, transaction

# ---- Counts what each principal reads, for all processes together, without a commit for each
# read.
#
# A process counts in memory and every half second adds what it counted to the database and reads
# the sum again. So a principal that reads at several processes at once may come past its limit by
# what they hand out within that time, and not by more. A process that dies forgets as much.

log = logging.getLogger(__name__)

_TYPES = {"near": SignalType.LIMIT_NEAR, "reached": SignalType.LIMIT_REACHED}

SYNC_SECONDS = 0.5
#: Who has not read for so many rounds is read anew when they come back.
IDLE_ROUNDS = 20
#: What is counted, and how many reads it is.
METERED = {
    Action.DOCUMENT_READ: 1,
    Action.FAX_READ: 1,
    Action.ORDER_READ: 0,
    # All full numbers of an order are one read.
    Action.ORDER_NUMBERS: 1,
    # Its answer shows the order, too.
    Action.ORDER_CHANGE: 0,
}

#: Who passes on what they read, and so reads more.
_MACHINES = frozenset({Role.FAX_GATEWAY, WORKER_ROLE})


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit that is reached: in a sentence, and when it is worth trying again."""

    detail: str
    retry_after_seconds: int


@dataclass(slots=True)
class _Known:
    """A principal's usage, what of it is not in the database yet, and who was told of it."""

    usage: Usage
    limits: Limits
    pending: Counter[tuple[int, UUID]] = field(default_factory=Counter)
    #: How often each of those was counted, be it for no read, and the orders of the database.
    counts: Counter[tuple[int, UUID]] = field(default_factory=Counter)
    stored: frozenset[UUID] = frozenset()
    idle_rounds: int = 0
    told: set[str] = field(default_factory=set)

    def forget(self, counted: tuple[int, UUID]) -> None:
        """Keep nothing of what is in the database, or was taken back."""
        del self.counts[counted]
        if not self.pending[counted]:
            del self.pending[counted]


class Meter:
    """The counts of one process; `run` keeps them together with those of the others."""

    def __init__(
        self,
        pool: Pool,
        config: Config,
        clock: Callable[[], datetime],
    ) -> None:
        self._pool, self._clock, self._config = pool, clock, config
        self._untold: dict[UUID, Signal] = {}
        self._limits = Limits(config.reads_per_hour_max, config.orders_per_hour_max)
        # Faxes belong to no order.
        self._fax_limits = Limits(config.faxes_per_hour_max, 1)
        self._known: dict[str, _Known] = {}
        self._syncing = asyncio.Lock()
        #: How often a principal came near a limit, and to it: what an alarm looks at.
        self.signals: Counter[str] = Counter({"near": 0, "reached": 0, "break-glass": 0})

    async def look(
        self, principal: Principal, action: Action, order: UUID | None
    ) -> Exceeded | None:
        """
        Return the limit that this would be past, if any; the first look asks the database.

        Who counts what is allowed before waiting for anything else lets no other read in between.
        """
        if action not in METERED:
            return None
        known = await self._get(principal)
        detail = exceeded(known.usage, known.limits, order or NO_ORDER, METERED[action])
        if detail is None:
            return None
        self._tell("reached", principal, known)
        return Exceeded(detail, retry_after_seconds(known.usage, self._clock()))

    async def count(self, principal: Principal, action: Action, order: UUID | None) -> None:
        """Count what was allowed."""
        if action not in METERED:
            return
        known, bucket = await self._get(principal), bucket_of(self._clock())
        known.usage.add(bucket, order or NO_ORDER, METERED[action])
        known.pending[bucket, order or NO_ORDER] += METERED[action]
        known.counts[bucket, order or NO_ORDER] += 1
        known.idle_rounds = 0
        if is_notable(known.usage, known.limits):
            self._tell("near", principal, known)

    async def has_counted(self, principal: Principal, order: UUID) -> bool:
        """Whether the principal has opened something of an order within the hour."""
        return order in (await self._get(principal)).usage.orders

    def past(self, principal: Principal) -> Exceeded | None:
        """Return the limit that reads at several processes came past; asks no database."""
        known = self._known.get(principal.id)
        if known is None:
            return None
        usage, limits = known.usage, known.limits
        if usage.reads <= limits.reads and len(usage.orders) <= limits.orders:
            return None
        detail = f"more than {limits.reads} reads, or {limits.orders} orders, within the hour"
        return Exceeded(detail, retry_after_seconds(usage, self._clock()))

    def take_back(self, principal: Principal, action: Action, order: UUID | None) -> None:
        """Count a read, or an order, less: it was allowed, and then nothing was opened."""
        known = self._known.get(principal.id)
        if action not in METERED or known is None:
            return
        counted = bucket_of(self._clock()), order or NO_ORDER
        known.usage.reads -= METERED[action]
        known.pending[counted] -= METERED[action]
        known.counts[counted] -= 1
        if known.counts[counted] > 0:
            return
        known.forget(counted)
        if order not in known.stored and all(order != other for _, other in known.pending):
            known.usage.orders.discard(order or NO_ORDER)

    async def run(self) -> None:
        """Exchange counts with the other processes until cancelled, and once more then."""
        outages, what = Outages(log), "counts of reads wait"
        try:
            while True:
                await asyncio.sleep(SYNC_SECONDS)
                try:
                    await self.sync()
                    outages.works(what)
                except DatabaseUnavailableError as error:
                    outages.failed(what, reason_of(error))
        finally:
            with suppress(DatabaseUnavailableError, TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS * 4):
                    await self.sync()

    async def sync(self) -> None:
        """Add what was counted to the database, and read the sums again; one at a time."""
        async with self._syncing:
            await self._sync()

    async def _sync(self) -> None:
        active = {name: known for name, known in self._known.items() if known.pending}
        counted = {
            (name, bucket, subject): reads
            for name, known in active.items()
            for (bucket, subject), reads in known.pending.items()
        }
        times = {name: known.counts.copy() for name, known in active.items()}
        first, told = first_counting(self._clock()), list(self._untold.values())
        if counted or told:
            async with transaction(self._pool) as conn:
                if counted:
                    await access_sql.add_usage(conn, counted)
                    await access_sql.forget_usage(conn, first)
                if told:
                    endpoints = deliveries(told, self._config.webhooks)
                    await signals_sql.insert(conn, told, endpoints)
            for signal in told:
                self._untold.pop(signal.id, None)
            for (name, bucket, subject), reads in counted.items():
                known = active[name]
                known.pending[bucket, subject] -= reads
                known.counts[bucket, subject] -= times[name][bucket, subject]
                if known.counts[bucket, subject] <= 0:
                    known.forget((bucket, subject))
        await self._read_again(first)

    async def _read_again(self, first: int) -> None:
        for name, known in list(self._known.items()):
            known.idle_rounds += 1
            if known.idle_rounds > IDLE_ROUNDS and not known.pending:
                del self._known[name]
                continue
            async with connection(self._pool) as conn:
                usage = await access_sql.usage_of(conn, name, first)
            known.stored = frozenset(usage.orders)
            for (bucket, subject), reads in known.pending.items():
                usage.add(bucket, subject, reads)
            known.usage = usage
            if not is_notable(usage, known.limits):
                known.told.clear()

    async def _get(self, principal: Principal) -> _Known:
        known = self._known.get(principal.id)
        if known is None:
            async with connection(self._pool) as conn:
                usage = await access_sql.usage_of(conn, principal.id, first_counting(self._clock()))
            limits = self._fax_limits if principal.role in _MACHINES else self._limits
            known = self._known.setdefault(
                principal.id, _Known(usage, limits, stored=frozenset(usage.orders))
            )
        return known

    def _tell(self, level: str, principal: Principal, known: _Known) -> None:
        """Say so once for each time that a principal comes so far; the signal goes with `sync`."""
        if level in known.told:
            return
        known.told.add(level)
        self.signals[level] += 1
        now, served = self._clock(), self._config.regions
        signal = limit_signal(
            _TYPES[level],
            principal.id,
            min(principal.regions & set(served), default=served[0]),
            now,
            bucket=bucket_of(now),
            reads=known.usage.reads,
        )
        if deliveries([signal], self._config.webhooks):
            self._untold[signal.id] = signal
        log.warning(
            "%s came %s a limit: %d reads of %d orders within the hour",
            principal.id,
            "near" if level == "near" else "to",
            known.usage.reads,
            len(known.usage.orders),
        )


# ---- Bounds how many refusals are recorded singly: the log is never deleted, and a refusal costs
# nothing.
#
# Each process counts the refusals of a principal, and of the address it comes from, by the minute.
# Those past a limit are answered with 429 and only counted; when the minute is over one record
# says how many there were. What is allowed goes on as ever. A process that dies forgets the count
# of its last minute.

WINDOW_SECONDS = 60.0
FLUSH_SECONDS = 1.0
#: Principals and addresses that are counted at once; the one that was quiet longest goes first.
COUNTED_MAX = 10_000

#: Where a request comes from; None where that is a proxy, which stands for many, or no network.
ADDRESS: ContextVar[str | None] = ContextVar("address", default=None)


class Recorder(Protocol):
    """Makes records durable."""

    async def append(self, record: Record) -> None:
        """Return once the record is durable."""


@dataclass(slots=True)
class _Window:
    """The refusals of a principal or an address since a moment (monotonic seconds)."""

    since: float
    recorded: int = 0


@dataclass(slots=True)
class _Summary:
    """Refusals of a principal that were only counted, and what the last of them was."""

    since: float
    principal: Principal
    action: Action
    region: str
    number: int = 0


class Refused:
    """The counts of one process; `run` records what was only counted."""

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._config, self._recorder = config, recorder
        self._clock, self._new_id = clock, new_id
        self._windows = OrderedDict[str, _Window]()
        self._summaries: dict[str, _Summary] = {}

    def admit(self, principal: Principal, action: Action, region: str) -> int | None:
        """Count a refusal; None if it is to be recorded singly, else seconds until the next is."""
        address, now = ADDRESS.get(), time.monotonic()
        limits = {f"principal {principal.id}": self._config.refusals_per_minute_max}
        if address is not None:
            limits[f"address {address}"] = self._config.refusals_per_address_max
        windows = {name: self._window(name, now) for name in limits}
        full = [one for name, one in windows.items() if one.recorded >= limits[name]]
        if not full:
            for one in windows.values():
                one.recorded += 1
            return None
        summary = self._summaries.setdefault(principal.id, _Summary(now, principal, action, region))
        summary.number, summary.action, summary.region = summary.number + 1, action, region
        return max(1, round(max(one.since for one in full) + WINDOW_SECONDS - now))

    def _window(self, name: str, now: float) -> _Window:
        window = self._windows.get(name)
        if window is None or now - window.since >= WINDOW_SECONDS:
            window = self._windows[name] = _Window(now)
            if len(self._windows) > COUNTED_MAX:
                self._windows.popitem(last=False)
        self._windows.move_to_end(name)
        return window

    async def run(self) -> None:
        """Record what was only counted, until cancelled, and all of it then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush(time.monotonic() - WINDOW_SECONDS)
        finally:
            await self.flush(time.monotonic())

    async def flush(self, before: float) -> None:
        """Record, for each principal, how many refusals were only counted since before then."""
        due = [name for name, one in self._summaries.items() if one.since <= before]
        for name in due:
            summary = self._summaries.pop(name)
            try:
                # Begun, it goes on where this is cancelled: the count stands nowhere else by now.
                await asyncio.shield(self._recorder.append(self._record(summary)))
            except RecordsUnavailableError:
                log.warning("%d refusals of %s wait to be recorded", summary.number, name)
                with suppress(KeyError):
                    summary.number += self._summaries.pop(name).number
                self._summaries[name] = summary

    def _record(self, summary: _Summary) -> Record:
        return Record(
            id=self._new_id(),
            region=summary.region,
            at=self._clock(),
            phase="intent",
            principal=summary.principal.id,
            role=summary.principal.role,
            action=summary.action.value,
            decision="deny",
            reason=f"not-recorded-singly: {summary.number}",
        )
