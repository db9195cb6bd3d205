"""
Signals: what the porting system is told, after Standard Webhooks.

A signal's id follows from what happened, so that nothing is told twice under two ids, and a
receiver can tell a repetition. It carries ids, kinds and times, nothing personal.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5

from vault.domain.documents import Document

_SPACE = UUID("6c1f1c0e-5f0b-4d7a-9a45-1d4f2b6f7e11")
#: Doubling from half a minute; after the last the delivery is dead, until somebody replays it.
ATTEMPTS_MAX = 12
FIRST_WAIT = timedelta(seconds=30)
WAIT_MAX = timedelta(hours=6)
_PREFIX = "whsec_"


class SignalType(StrEnum):
    """What happened."""

    STORED = "document.stored"
    DUE_SOON = "document.due_soon"
    SHREDDED = "document.shredded"
    SEALED = "document.sealed"
    CONFLICT = "document.conflict"
    HOLD_PLACED = "hold.placed"
    HOLD_RELEASED = "hold.released"
    LIMIT_NEAR = "limit.near"
    LIMIT_REACHED = "limit.reached"


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that happened."""

    id: UUID
    region: str
    type: SignalType
    at: datetime
    payload: str


def document_signal(
    kind: SignalType, document: Document, at: datetime, *, about: str = "", **more: str | None
) -> Signal:
    """Return the signal of a document; `about` tells repeated events of one type apart."""
    data = {
        "document": str(document.id),
        "order": str(document.order_id),
        "kind": document.kind.value,
        "region": document.region,
        **more,
    }
    return _signal(kind, document.region, f"{document.id}/{about}", at, data)


def hold_signal(kind: SignalType, hold: UUID, region: str, at: datetime) -> Signal:
    """Return the signal of a hold."""
    return _signal(kind, region, str(hold), at, {"hold": str(hold), "region": region})


def limit_signal(
    kind: SignalType, principal: str, region: str, at: datetime, *, bucket: int, reads: int
) -> Signal:
    """Return the signal that a principal reads so much; it is told once in a bucket of time."""
    data = {"principal": principal, "region": region, "reads": str(reads)}
    return _signal(kind, region, f"{principal}/{bucket}", at, data)


def _signal(
    kind: SignalType, region: str, about: str, at: datetime, data: Mapping[str, str | None]
) -> Signal:
    identity = uuid5(_SPACE, f"{kind}/{about}")
    body = {"type": kind.value, "timestamp": _time(at), "data": data}
    return Signal(identity, region, kind, at, json.dumps(body, separators=(",", ":")))


def signature(secret: str, identity: UUID | str, at: datetime, body: str) -> str:
    """Return `v1,` and the HMAC-SHA256 of `id.timestamp.body`, as Standard Webhooks has it."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = secret.encode()
    said = f"{identity}.{int(at.timestamp())}.{body}".encode()
    return "v1," + base64.b64encode(hmac.digest(key, said, hashlib.sha256)).decode()


def next_attempt(attempts: int, now: datetime) -> datetime | None:
    """Return when to try again after so many attempts; None when it is given up."""
    if attempts >= ATTEMPTS_MAX:
        return None
    return now + min(FIRST_WAIT * (1 << max(attempts - 1, 0)), WAIT_MAX)


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
