"""What the JSON of every area is made of."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

BOOLEAN = {"type": "boolean"}
STRING = {"type": "string"}
ID = {"type": "string", "format": "uuid"}
TIME = {"type": "string", "format": "date-time"}
MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}
MAYBE_STRING = {"type": ["string", "null"]}
MAYBE_NUMBER = {"type": ["integer", "null"]}


def structure(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
    }


def one_of(words: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a word of an enumeration."""
    return {"type": "string", "enum": [str(word) for word in words]}


def time_text(at: datetime | None) -> str | None:
    """Return RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z") if at else None
