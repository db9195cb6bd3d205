"""
Porting orders: the carrier's status axis and the transitions along it.

An order is *ended* when it is ported or cancelled; from then on it takes no more documents, and the
retention of those it has may start.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from keys.stream import DataKey
from vault.errors import InvalidRequestError

NUMBERS_MAX = 500
CUSTOMER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Whose an order is that a restore brought back; no customer can have this id.
UNKNOWN_CUSTOMER = "?"
#: Stands in `not_known` of an order that may have ended, which a restore could not tell.
END_NOT_KNOWN = "ended_at"
#: Stands there of an order whose details nobody forgot, and whose key a restore did not find.
DETAILS_NOT_KNOWN = "details"
REFERENCE_LENGTH_MAX = 128
CARRIER_LENGTH_MAX = 100


class Status(StrEnum):
    """Where the carrier says the order stands."""

    DRAFT = "draft"
    IN_PROCESS = "in-process"
    SUBMITTED = "submitted"
    EXCEPTION = "exception"
    FOC_DATE_CONFIRMED = "foc-date-confirmed"
    PORTED = "ported"
    CANCEL_PENDING = "cancel-pending"
    CANCELLED = "cancelled"


_MOVING = {
    Status.IN_PROCESS,
    Status.SUBMITTED,
    Status.EXCEPTION,
    Status.FOC_DATE_CONFIRMED,
}
_STOPPING = {Status.CANCEL_PENDING, Status.CANCELLED}

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.DRAFT: frozenset(_MOVING | {Status.PORTED, Status.CANCELLED}),
    **{
        status: frozenset((_MOVING - {status}) | {Status.PORTED} | _STOPPING)
        for status in sorted(_MOVING)
    },
    Status.CANCEL_PENDING: frozenset(_MOVING | {Status.PORTED, Status.CANCELLED}),
    # A reversal reopens the order; what retention has shredded by then stays shredded.
    Status.PORTED: frozenset({Status.EXCEPTION}),
    Status.CANCELLED: frozenset(),
}

ENDED = frozenset({Status.PORTED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Order:
    """
    One porting order as its row says.

    `details` is encrypted under the order's own key; None once that is gone, see `details_gone_at`.
    """

    id: UUID
    region: str
    customer: str
    status: Status
    details: bytes | None
    created_at: datetime
    changed_at: datetime
    ended_at: datetime | None
    details_gone_at: datetime | None = None
    #: When a restore brought it back without its row, and what of it is not known since.
    recovered_at: datetime | None = None
    not_known: list[str] | None = None


class PortType(StrEnum):
    """Whether the whole account moves."""

    FULL = "full"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Details:
    """What is encrypted of an order: E.164 numbers, the customer's reference, and the carriers."""

    numbers: tuple[str, ...]
    customer_reference: str | None
    #: Whether all numbers of the customer's account move, or some.
    type: PortType | None = None
    losing_carrier: str | None = None
    gaining_carrier: str | None = None


def check_customer(text: str) -> str:
    """Return the customer's opaque id, or raise `InvalidRequestError`."""
    if not CUSTOMER_PATTERN.fullmatch(text):
        raise InvalidRequestError(
            "customer must be an id of 1 to 64 letters, digits, dots, dashes and underscores"
        )
    return text


def check_number(number: str) -> str:
    """Return the number if it is valid E.164, or raise `InvalidRequestError`."""
    if not _is_e164(number):
        raise InvalidRequestError("number is not a valid E.164 telephone number, as +442079460123")
    return number


def check_reference(text: str) -> str:
    """Return the customer's own reference, or raise `InvalidRequestError`."""
    _check_words("customer_reference", text, REFERENCE_LENGTH_MAX)
    return text


def _check_words(name: str, text: str, longest: int) -> None:
    """Refuse what would break the lines that it is shown in."""
    if not 1 <= len(text) <= longest or not text.isprintable():
        raise InvalidRequestError(f"{name} must have 1 to {longest} printable characters")


def check_details(
    numbers: list[str],
    customer_reference: str | None,
    *,
    port_type: str | None = None,
    losing_carrier: str | None = None,
    gaining_carrier: str | None = None,
) -> Details:
    """Return the details with every number valid E.164, or raise `InvalidRequestError`."""
    if not 1 <= len(numbers) <= NUMBERS_MAX:
        raise InvalidRequestError(f"numbers must hold 1 to {NUMBERS_MAX} telephone numbers")
    if customer_reference is not None:
        check_reference(customer_reference)
    for position, number in enumerate(numbers):
        if not _is_e164(number):
            raise InvalidRequestError(f"numbers[{position}] is not a valid E.164 telephone number")
    if port_type is not None and port_type not in list(PortType):
        raise InvalidRequestError(f"type must be one of {', '.join(PortType)}")
    carriers = {"losing_carrier": losing_carrier, "gaining_carrier": gaining_carrier}
    for name, carrier in carriers.items():
        if carrier is not None:
            _check_words(name, carrier, CARRIER_LENGTH_MAX)
    return Details(
        tuple(dict.fromkeys(numbers)),
        customer_reference,
        PortType(port_type) if port_type else None,
        losing_carrier,
        gaining_carrier,
    )


def _is_e164(number: str) -> bool:
    # Slow to import, and whoever needs the words of an order alone has no number.
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return False
    formatted = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return phonenumbers.is_possible_number(parsed) and formatted == number


def encode_details(details: Details) -> bytes:
    """Return the bytes that are encrypted under the order's key."""
    return json.dumps(
        {
            "numbers": details.numbers,
            "customer_reference": details.customer_reference,
            "type": details.type,
            "losing_carrier": details.losing_carrier,
            "gaining_carrier": details.gaining_carrier,
        }
    ).encode()


def decode_details(data: bytes) -> Details:
    """Return what `encode_details` was given."""
    fields = json.loads(data)
    # Orders of before have fewer fields.
    return Details(
        tuple(fields["numbers"]),
        fields["customer_reference"],
        PortType(fields["type"]) if fields.get("type") else None,
        fields.get("losing_carrier"),
        fields.get("gaining_carrier"),
    )


def details_context(region: str, order: UUID) -> bytes:
    """Return the context that the order's encrypted details are bound to."""
    return f"portvault/order-details/v1/{region}/{order}".encode()


# ---- What is said of an order, and what it adds up to. ------------------------------------------
#
# Carriers send events late, twice, out of order, and contradict themselves. So an order's state is
# not moved by an event: it is folded from all of them, sorted by when they occurred. Whatever the
# order in which they arrive, and however often, the same events give the same state.

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


# ---- The keyed index of telephone numbers and references: which orders have one, for who has the
# key.
#
# Without it nobody can tell from the rows which number an order moves, nor, once the key is gone,
# from the rows of an old backup.

_PURPOSE = "number-index"
_REFERENCE_PURPOSE = "reference-index"
_VERSION = 8


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """What stands in the index for a number of an order, or for its reference."""

    mac: bytes
    reference: bool = False


def macs(key: DataKey, numbers: Iterable[str]) -> list[bytes]:
    """Return what stands in the index for E.164 numbers."""
    return [key.mac(number.encode(), _PURPOSE) for number in numbers]


def reference_mac(key: DataKey, reference: str) -> bytes:
    """Return what stands in the index for a customer's own reference, to the letter."""
    return key.mac(reference.encode(), _REFERENCE_PURPOSE)


def marks_of(key: DataKey, details: Details) -> list[Mark]:
    """Return all that an order is found by."""
    marks = [Mark(mac) for mac in macs(key, details.numbers)]
    if details.customer_reference is not None:
        marks.append(Mark(reference_mac(key, details.customer_reference), reference=True))
    return marks


def index_key_id(identity: UUID) -> UUID:
    """Return an id of version 8: so a restore tells the key from one whose document is lost."""
    return UUID(int=identity.int & ~(0xF << 76) | _VERSION << 76)
