"""JSON shapes of approvals."""

from datetime import datetime
from typing import Any

from vault.domain.approvals import Act, Approval, State
from vault.web.shapes import (
    ID,
    MAYBE_STRING,
    MAYBE_TIME,
    STRING,
    TIME,
    one_of,
    structure,
    time_text,
)

APPROVAL_SCHEMAS: dict[str, Any] = {
    "NewApproval": structure(
        {"act": one_of(Act), "subject": STRING, "region": STRING, "reason": STRING}
    ),
    "Approval": structure(
        {
            "id": ID,
            "act": one_of(Act),
            "subject": STRING,
            "region": STRING,
            "reason": STRING,
            "state": one_of(State),
            "requested_by": STRING,
            "requested_at": TIME,
            "expires_at": TIME,
            "approved_by": MAYBE_STRING,
            "approved_at": MAYBE_TIME,
            "used_at": MAYBE_TIME,
        }
    ),
    "ApprovalPage": structure(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Approval"}},
            "next_cursor": MAYBE_STRING,
        }
    ),
}


def approval_json(approval: Approval, now: datetime) -> dict[str, Any]:
    """Return an approval with how far it has come."""
    return {
        "id": str(approval.id),
        "act": approval.act.value,
        "subject": approval.subject,
        "region": approval.region,
        "reason": approval.reason,
        "state": approval.state(now).value,
        "requested_by": approval.requested_by,
        "requested_at": time_text(approval.requested_at),
        "expires_at": time_text(approval.expires_at),
        "approved_by": approval.approved_by,
        "approved_at": time_text(approval.approved_at),
        "used_at": time_text(approval.used_at),
    }
