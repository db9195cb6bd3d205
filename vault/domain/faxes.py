"""
Faxes: their states, how a failed delivery is tried again, and the receipt that stays.

The words are those of fax gateways. A fax that has come to an end, whichever, is shredded in the
same transaction; what stays is the receipt: times, pages, masked numbers, result, T.30 facts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from vault.domain.documents import PDF, TIFF, Custody
from vault.errors import ConflictError

#: The word for it in access records.
KIND = "fax"
MEDIA_TYPES = frozenset({TIFF, PDF})
#: Stands for the numbers of a fax that a restore brought back: only its row had them.
UNKNOWN_NUMBER = "?"


class Direction(StrEnum):
    """`inbound` comes from the telephone network, `outbound` goes there."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Channel(StrEnum):
    """Who delivers: a gateway that fetches, or the vault's own relay by mail."""

    GATEWAY = "gateway"
    MAIL = "mail"


class State(StrEnum):
    """`received` and `queued` wait, `delivering` is tried; the others are final, and shredded."""

    RECEIVED = "received"
    QUEUED = "queued"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"


FINAL = frozenset({State.DELIVERED, State.FAILED, State.EXPIRED})
OPEN = frozenset(State) - FINAL

TRANSITIONS: dict[State, frozenset[State]] = {
    State.RECEIVED: FINAL | {State.QUEUED, State.DELIVERING},
    State.QUEUED: FINAL | {State.QUEUED, State.DELIVERING},
    State.DELIVERING: FINAL | {State.QUEUED, State.DELIVERING},
    **{state: frozenset[State]() for state in sorted(FINAL)},
}


@dataclass(frozen=True, slots=True)
class Numbers:
    """Who sends and who gets it, E.164; `caller` is None where it is unknown or withheld."""

    caller: str | None
    callee: str


@dataclass(frozen=True, slots=True)
class Fax:
    """One fax as its row says; without `metadata`, which dies with the key, it is the receipt."""

    id: UUID
    region: str
    direction: Direction
    channel: Channel
    state: State
    custody: Custody
    media_type: str
    size_bytes: int
    pages: int
    stream_header: bytes
    metadata: bytes | None
    caller_masked: str | None
    callee_masked: str
    facts: Mapping[str, str]
    attempts: int
    next_attempt_at: datetime
    result: str | None
    received_at: datetime
    ended_at: datetime | None
    last_generation: int | None
    purged_at: datetime | None
    sealed_at: datetime | None
    #: When a restore brought it back without its row, and what of it is not known since.
    recovered_at: datetime | None = None
    not_known: list[str] | None = None
    #: When a restore left it behind, whose seal, or one before it, destroyed what its key hung on.
    left_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What the sandbox found a fax to be; `seconds` on the line, where the file says it."""

    pages: int
    seconds: int | None


@dataclass(frozen=True, slots=True)
class Mail:
    """What the sandbox found in a mail: its Message-ID, where it has one, and its faxes."""

    message_id: str | None
    faxes: tuple[bytes, ...] = field(repr=False)


def check_transition(old: State, new: State) -> bool:
    """Return whether something changes; raises `ConflictError` where it may not."""
    if new in TRANSITIONS[old]:
        return True
    if old is new:
        return False
    raise ConflictError(f"the fax is {old}; that is final, and its content is shredded")


def next_attempt_at(
    now: datetime, attempts: int, *, first_seconds: float, last_seconds: float
) -> datetime:
    """Return when a delivery that failed `attempts` times is tried again: twice as late each."""
    # Beyond this exponent any wait is longer than the longest.
    doubled = first_seconds * 2.0 ** min(max(attempts - 1, 0), 32)
    return now + timedelta(seconds=min(doubled, last_seconds))


def encode_numbers(numbers: Numbers) -> bytes:
    """Return the bytes that are sealed under the fax's own key."""
    return json.dumps({"from": numbers.caller, "to": numbers.callee}).encode()


def decode_numbers(data: bytes) -> Numbers:
    """Return what `encode_numbers` was given."""
    fields = json.loads(data)
    return Numbers(fields["from"], fields["to"])
