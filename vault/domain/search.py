"""What compliance asks the access log for, and what is found."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

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


@dataclass(frozen=True, slots=True)
class Found:
    """A record and its place in the log, None while it has none."""

    index: int | None
    record: Record
    #: Whether it is under no published checkpoint yet.
    waiting: bool = False
