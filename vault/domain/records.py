"""
Access records: an intent before, an outcome after, and the bytes that the log commits to.

A record holds random ids and codes; never content, names, file names or full telephone numbers.
"""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

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
