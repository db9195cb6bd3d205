"""
What is said of an order, and what it adds up to.

Carriers send events late, twice, out of order, and contradict themselves. So an order's state is
not moved by an event: it is folded from all of them, sorted by when they occurred. Whatever the
order in which they arrive, and however often, the same events give the same state.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vault.domain.orders import ENDED, Status
from vault.errors import InvalidRequestError

#: A carrier's clock, or the desk's, may be so far ahead.
AHEAD_MAX = timedelta(days=1)
DESK = "desk"
#: Of events of one moment the one further down counts.
_RANK = {status: rank for rank, status in enumerate(Status)}


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """One statement; `event` is its id at the source."""

    source: str
    event: str
    status: Status
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Folded:
    """Where an order stands, since when it has ended, and when anything was last said of it."""

    status: Status
    ended_at: datetime | None
    last_at: datetime


def fold(events: Iterable[OrderEvent]) -> Folded:
    """Return what events add up to; there is at least one."""
    ended_at: datetime | None = None
    status: Status | None = None
    last: OrderEvent | None = None
    for event in sorted(events, key=lambda e: (e.occurred_at, _RANK[e.status], e.source, e.event)):
        if event.status not in ENDED:
            ended_at = None
        elif event.status is not status:
            ended_at = event.occurred_at
        status, last = event.status, event
    if status is None or last is None:
        raise ValueError("an order has at least the event of its creation")
    return Folded(status, ended_at, last.occurred_at)


def time_said(occurred_at: datetime) -> str:
    """Return what the outcome of an event says in the log: when it occurred."""
    return occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time_said(text: str | None) -> datetime | None:
    """Return when an event occurred; None where an earlier release did not say."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else None


def check_time(at: datetime, created_at: datetime, now: datetime) -> None:
    """Raise unless a time is aware, not before the order and not far in the future."""
    if at.tzinfo is None:
        raise InvalidRequestError("effective_at must say its offset, as 2026-03-01T12:00:00Z")
    if at > now + AHEAD_MAX:
        raise InvalidRequestError("effective_at is in the future; say it when it has happened")
    if at < created_at:
        raise InvalidRequestError("effective_at is before the order was opened here")
