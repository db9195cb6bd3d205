"""JSON shapes of break-glass."""

from typing import Any

from vault.domain.access import Role
from vault.web.shapes import ID, STRING, TIME, one_of, structure

BREAK_GLASS_SCHEMAS: dict[str, Any] = {
    "NewBreakGlass": structure(
        {
            "role": one_of(Role),
            "regions": {"type": "array", "items": STRING, "minItems": 1},
            "days": {"type": "integer", "minimum": 1},
            "approval": ID,
        }
    ),
    "BreakGlass": structure({"id": ID, "credential": STRING, "expires_at": TIME}),
    "BreakGlassOpening": structure({"credential": STRING, "reference": STRING}),
    "BreakGlassToken": structure({"token": STRING, "expires_at": TIME}),
}
