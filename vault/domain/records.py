"""
Access records: an intent before, an outcome after, and the bytes that the log commits to.

A record holds random ids and codes; never content, names, file names or full telephone numbers.
"""

import base64
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from vault.domain.access import OUTGOING, PURPOSED
from vault.domain.merkle import HASH_BYTES, leaf_hash
from vault.domain.regions import REGIONS
from vault.domain.text import parse_days
from vault.errors import ConfigurationError

FORMAT = 1
#: `progress` renews the intent of a stream that is still open.
PHASES = ("intent", "progress", "outcome")
_IDS = frozenset({"id", "intent", "document", "order"})


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the access log; `at` is aware UTC."""

    id: UUID
    region: str
    at: datetime
    phase: str
    principal: str
    role: str
    action: str
    intent: UUID | None = None
    document: UUID | None = None
    order: UUID | None = None
    kind: str | None = None
    purpose: str | None = None
    reference: str | None = None
    region_to: str | None = None
    basis: str | None = None
    decision: str | None = None
    reason: str | None = None
    result: str | None = None
    size_bytes: int | None = None


_NAMES = tuple(sorted(Record.__dataclass_fields__))
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def canonical_bytes(record: Record) -> bytes:
    """Return the one encoding of a record: JSON, keys sorted, nothing left to taste."""
    shown: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(record, name)
        if value is None:
            continue
        if name in _IDS:
            value = str(value)
        elif name == "at":
            value = _time_text(value)
        shown[name] = value
    # It sorts behind every field.
    shown["v"] = FORMAT
    return _encode(shown).encode()


def _time_text(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError("the time of a record has a time zone")
    moment = at.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def parse(data: bytes) -> Record:
    """Return the record of its canonical bytes; raises ValueError for any other bytes."""
    try:
        shown = json.loads(data)
        if shown.pop("v") != FORMAT:
            raise ValueError("not a record of this format")
        shown["at"] = datetime.fromisoformat(shown["at"])
        for name in _IDS & set(shown):
            shown[name] = UUID(shown[name])
        record = Record(**shown)
        same = canonical_bytes(record) == data
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("not a record") from error
    if not same:
        raise ValueError("not the canonical form of a record")
    if not _well_typed(record):
        raise ValueError("a field of the record has the wrong type")
    return record


def _well_typed(record: Record) -> bool:
    texts = [
        getattr(record, field.name)
        for field in fields(record)
        if field.name not in _IDS | {"at", "size_bytes"}
    ]
    return (
        record.phase in PHASES
        and all(value is None or type(value) is str for value in texts)
        and (record.size_bytes is None or type(record.size_bytes) is int)
    )


def mask_number(number: str) -> str:
    """Return a telephone number without its last three digits."""
    return number[:-3] + "***"


# ---- Receipts: what a reader of content is given, to convict a log that forgets the reading.
#
# A dictionary of structured fields (RFC 8941): the record's id, and the hash by which it stands in
# the log. The record has no place yet when content goes out; a proof can be asked for by its id
# about a second later, and leads from this hash to a signed checkpoint, or the log has forgotten
# it.

HEADER = "Access-Receipt"
_FORM = re.compile(r'region="([a-z]+)", record="([0-9a-f-]{36})", leaf=:([A-Za-z0-9+/=]+):')


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which record of which log, and its leaf hash."""

    region: str
    record: UUID
    leaf: bytes


def receipt_of(record: Record) -> Receipt:
    """Return the receipt of a record."""
    return Receipt(record.region, record.id, leaf_hash(canonical_bytes(record)))


def encode_receipt(receipt: Receipt) -> str:
    """Return the value of the header."""
    leaf = base64.b64encode(receipt.leaf).decode()
    return f'region="{receipt.region}", record="{receipt.record}", leaf=:{leaf}:'


def parse_receipt(text: str) -> Receipt:
    """Return what `encode_receipt` was given; raises ValueError for any other text."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a receipt")
    region, record, leaf = match.groups()
    receipt = Receipt(region, UUID(record), base64.b64decode(leaf, validate=True))
    if len(receipt.leaf) != HASH_BYTES:
        raise ValueError("not a receipt")
    return receipt


# ---- How long the log keeps what its records say: policy as data, with a floor that no row
# undercuts.
#
# The floor stands in the database, too (`log_floor`), where no policy reaches it.

FLOOR = timedelta(days=731)
FOR_EVER = "for ever"

#: None: for ever.
LogPolicy = Mapping[str, timedelta | None]


def parse_log_policy(text: str) -> LogPolicy:
    """Return how long each region's log is kept; raises `ConfigurationError` naming the row."""
    try:
        rows = tomllib.loads(text)["rows"]
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigurationError(f"the log's retention cannot be read: {error}") from error
    policy: dict[str, timedelta | None] = {}
    for position, row in enumerate(rows, start=1):
        name = f"log retention row {position}"
        if set(row) != {"regions", "keep", "citation"} or not str(row["citation"]).strip():
            raise ConfigurationError(f"{name} must have regions, keep and citation")
        for region in row["regions"]:
            if region not in REGIONS or region in policy:
                raise ConfigurationError(f"{name} names {region}, unknown or named before")
            policy[region] = _parse_keep(name, row["keep"])
    if missing := set(REGIONS) - set(policy):
        raise ConfigurationError(f"the log's retention has no row for {', '.join(sorted(missing))}")
    return policy


def _parse_keep(name: str, value: object) -> timedelta | None:
    if value == FOR_EVER:
        return None
    days = parse_days(value)
    if days is None:
        raise ConfigurationError(f'{name}: write how long as "P2557D", or "{FOR_EVER}"')
    keep = timedelta(days=days)
    if keep < FLOOR:
        raise ConfigurationError(f"{name}: the log is kept {FLOOR.days} days at least")
    return keep


# ---- What compliance asks the access log for, and what is found. --------------------------------


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
