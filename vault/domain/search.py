"""What compliance asks the access log for, and what is found."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from vault.domain.access import OUTGOING, PURPOSED
from vault.domain.records import Record


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: all that fit every field that is given."""

    document: UUID | None = None
    order: UUID | None = None
    principal: str | None = None
    purpose: str | None = None
    action: str | None = None
    #: Only what was refused.
    refused: bool = False
    #: Only what left its region, or was to.
    transfers: bool = False
    since: datetime | None = None
    until: datetime | None = None


class Outcome(StrEnum):
    """Whether bytes went out on an intent to read."""

    BYTES = "bytes"
    NONE = "none"
    CUT = "cut"
    REFUSED = "refused"
    #: Nothing is recorded of its end: it goes on, or its process died a moment ago.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class WentOut:
    """How a reading ended, and how many bytes of it went out, None where that is not known."""

    outcome: Outcome
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A record and its place in the log, None while it has none."""

    index: int | None
    record: Record
    #: Whether it is under no published checkpoint yet.
    waiting: bool = False
    #: What its principal was called then.
    name: str | None = None
    #: Of an intent to hand something out.
    went_out: WentOut | None = None


def hands_out(record: Record) -> bool:
    """Whether a record is an intent to hand out what is of a document, a fax or an order."""
    about = record.document is not None or record.order is not None
    return about and record.phase == "intent" and record.action in OUTGOING | PURPOSED


def went_out(intent: Record, followers: Iterable[Record]) -> WentOut:
    """Return what became of an intent to hand something out, by the records that follow it."""
    if intent.decision == "deny":
        return WentOut(Outcome.REFUSED, 0)
    followers = list(followers)
    sizes = [record.size_bytes for record in followers if record.size_bytes is not None]
    size = max(sizes, default=None)
    results = [record.result for record in followers if record.phase == "outcome"]
    if not results:
        return WentOut(Outcome.OPEN, size)
    if "completed" in results:
        return WentOut(Outcome.BYTES, size)
    # Where nobody counted, nobody can say that nothing went out.
    return WentOut(
        Outcome.NONE if size == 0 and "interrupted" not in results else Outcome.CUT, size
    )
