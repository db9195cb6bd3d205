"""JSON shapes of break-glass."""

from datetime import datetime
from typing import Any

from vault.domain.access import Role
from vault.domain.credentials import Sealed, State
from vault.web.shapes import (
    ID,
    MAYBE_STRING,
    MAYBE_TIME,
    REGION,
    STRING,
    TIME,
    one_of,
    structure,
    time_text,
)

BREAK_GLASS_SCHEMAS: dict[str, Any] = {
    "NewBreakGlass": structure(
        {
            "role": one_of(Role),
            "regions": {"type": "array", "items": REGION, "minItems": 1},
            "days": {"type": "integer", "minimum": 1},
            "approval": ID,
        }
    ),
    "BreakGlass": structure({"id": ID, "credential": STRING, "expires_at": TIME}),
    "BreakGlassOpening": structure({"credential": STRING, "reference": STRING}),
    "SealedCredential": structure(
        {
            "id": ID,
            "role": one_of(Role),
            "regions": {"type": "array", "items": REGION},
            "state": one_of(State),
            "sealed_by": STRING,
            "sealed_at": TIME,
            "expires_at": TIME,
            "opened_at": MAYBE_TIME,
            "opened_by": MAYBE_STRING,
            "token": {"type": ["string", "null"], "format": "uuid"},
            "revoked_at": MAYBE_TIME,
            "revoked_by": MAYBE_STRING,
        }
    ),
    "BreakGlassPage": structure(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/SealedCredential"}},
            "next_cursor": MAYBE_STRING,
        }
    ),
    "BreakGlassToken": structure({"token": STRING, "expires_at": TIME}),
}


def sealed_json(sealed: Sealed, now: datetime) -> dict[str, Any]:
    """Return a sealed credential, without anything that opens it."""
    return {
        "id": str(sealed.id),
        "role": sealed.role,
        "regions": list(sealed.regions),
        "state": sealed.state(now).value,
        "sealed_by": sealed.sealed_by,
        "sealed_at": time_text(sealed.sealed_at),
        "expires_at": time_text(sealed.expires_at),
        "opened_at": time_text(sealed.opened_at),
        "opened_by": sealed.opened_by,
        "token": str(sealed.token) if sealed.token else None,
        "revoked_at": time_text(sealed.revoked_at),
        "revoked_by": sealed.revoked_by,
    }
