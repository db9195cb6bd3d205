"""JSON shapes of faxes."""

from typing import Any

from vault.domain.faxes import Channel, Direction, Fax, State
from vault.web.shapes import (
    ID,
    MAYBE_STRING,
    MAYBE_TIME,
    RECOVERED,
    REGION,
    STRING,
    TIME,
    one_of,
    recovered_json,
    structure,
    time_text,
)

FAX_SCHEMAS: dict[str, Any] = {
    "Fax": structure(
        {
            "id": ID,
            "region": REGION,
            "direction": one_of(Direction),
            "channel": one_of(Channel),
            "state": one_of(State),
            "custody": one_of(("stored", "shredded", "sealed")),
            "media_type": STRING,
            "size_bytes": {"type": "integer"},
            "pages": {"type": "integer"},
            "from_masked": MAYBE_STRING,
            "to_masked": STRING,
            "facts": {"type": "object", "additionalProperties": STRING},
            "attempts": {"type": "integer"},
            "next_attempt_at": MAYBE_TIME,
            "result": MAYBE_STRING,
            "received_at": TIME,
            "ended_at": MAYBE_TIME,
            "beyond_use_since": MAYBE_TIME,
            "irrecoverable_since": MAYBE_TIME,
        },
        RECOVERED,
    ),
    "FaxPage": structure(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Fax"}},
            "next_cursor": MAYBE_STRING,
        }
    ),
    "FaxDelivered": structure({}, {"result": MAYBE_STRING}),
    "FaxFailed": structure({"reason": STRING}, {"final": {"type": "boolean"}}),
}


def fax_json(fax: Fax) -> dict[str, Any]:
    """Return a fax; once it has ended this is its receipt, which has nothing of its content."""
    return {
        "id": str(fax.id),
        "region": fax.region,
        "direction": fax.direction.value,
        "channel": fax.channel.value,
        "state": fax.state.value,
        "custody": fax.custody.value,
        "media_type": fax.media_type,
        "size_bytes": fax.size_bytes,
        "pages": fax.pages,
        "from_masked": fax.caller_masked,
        "to_masked": fax.callee_masked,
        "facts": dict(fax.facts),
        "attempts": fax.attempts,
        "next_attempt_at": None if fax.ended_at else time_text(fax.next_attempt_at),
        "result": fax.result,
        "received_at": time_text(fax.received_at),
        "ended_at": time_text(fax.ended_at),
        "beyond_use_since": time_text(fax.ended_at),
        "irrecoverable_since": time_text(fax.sealed_at),
        **recovered_json(fax.recovered_at, fax.not_known),
    }
