"""JSON shapes of approvals."""

from datetime import datetime
from typing import Any

from vault.domain.access import Purpose
from vault.domain.approvals import Act, Approval, State
from vault.web.shapes import (
    ID,
    MAYBE_NUMBER,
    MAYBE_STRING,
    MAYBE_TIME,
    REGION,
    STRING,
    TIME,
    maybe,
    one_of,
    structure,
    time_text,
)

APPROVAL_SCHEMAS: dict[str, Any] = {
    "NewApproval": structure(
        {"act": one_of(Act), "subject": STRING, "region": REGION, "reason": STRING},
        # The first two go with a disclosure, the last with break-glass.
        {
            "purpose": one_of(Purpose),
            "reference": STRING,
            "days": {"type": "integer", "minimum": 1},
        },
    ),
    "Approval": structure(
        {
            "id": ID,
            "act": one_of(Act),
            "subject": STRING,
            "region": REGION,
            "purpose": maybe(one_of(Purpose)),
            "reference": MAYBE_STRING,
            "days": MAYBE_NUMBER,
            "reason": STRING,
            "state": one_of(State),
            "requested_by": STRING,
            "requested_at": TIME,
            "expires_at": TIME,
            "approved_by": MAYBE_STRING,
            "approved_at": MAYBE_TIME,
            "used_at": MAYBE_TIME,
            "ended_by": MAYBE_STRING,
            "ended_at": MAYBE_TIME,
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
        "act": approval.terms.act.value,
        "subject": approval.terms.subject,
        "region": approval.terms.region,
        "purpose": approval.terms.purpose,
        "reference": approval.terms.reference,
        "days": approval.terms.days,
        "reason": approval.reason,
        "state": approval.state(now).value,
        "requested_by": approval.requested_by,
        "requested_at": time_text(approval.requested_at),
        "expires_at": time_text(approval.expires_at),
        "approved_by": approval.approved_by,
        "approved_at": time_text(approval.approved_at),
        "used_at": time_text(approval.used_at),
        "ended_by": approval.ended_by,
        "ended_at": time_text(approval.ended_at),
    }
