"""The routes of approvals."""

from datetime import datetime
from typing import Any

from aiohttp import web

from vault.actions import approvals
from vault.actions.once import encode_cursor
from vault.domain.access import Purpose
from vault.domain.approvals import Act, Approval, State, Terms
from vault.errors import InvalidRequestError
from vault.web.requests import (
    answer,
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    time_cursor,
    vault_of,
)
from vault.web.route import (
    ID,
    IDEMPOTENCY,
    MAYBE_NUMBER,
    MAYBE_STRING,
    MAYBE_TIME,
    PAGE,
    REGION,
    STRING,
    TIME,
    Route,
    maybe,
    one_of,
    structure,
    time_text,
)

# ---- JSON shapes of approvals. ------------------------------------------------------------------

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


# ---- The API of approvals: ask for what takes four eyes, look at it, agree, decline, withdraw.


async def request_approval(request: web.Request) -> web.Response:
    """Ask for an act that takes four eyes."""
    fields = await json_fields(
        request,
        act=str,
        subject=str,
        region=str,
        reason=str,
        purpose=str,
        reference=str,
        days=int,
    )
    try:
        act = Act(needed(fields, "act"))
    except ValueError:
        raise InvalidRequestError(f"act must be one of {', '.join(Act)}") from None
    vault = vault_of(request)
    terms = Terms(
        act,
        needed(fields, "subject"),
        needed(fields, "region"),
        purpose=fields.get("purpose"),
        reference=fields.get("reference"),
        days=fields.get("days"),
    )
    approval = await approvals.request_approval(
        vault,
        principal_of(request),
        terms,
        reason=needed(fields, "reason"),
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return await answer(request, approval_json(approval, vault.clock()), status=201)


async def list_approvals(request: web.Request) -> web.Response:
    """List what was asked for, newest first."""
    vault, limit = vault_of(request), page_limit(request)
    found = await approvals.list_approvals(
        vault, principal_of(request), time_cursor(request), limit + 1
    )
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].requested_at, page[-1].id) if more else None
    data = [approval_json(approval, vault.clock()) for approval in page]
    return await answer(request, {"data": data, "next_cursor": cursor})


async def approve_request(request: web.Request) -> web.Response:
    """Agree to what somebody else asked for."""
    vault = vault_of(request)
    approval = await approvals.approve(vault, principal_of(request), identity_of(request))
    return await answer(request, approval_json(approval, vault.clock()))


async def decline_request(request: web.Request) -> web.Response:
    """Refuse what somebody else asked for."""
    vault = vault_of(request)
    approval = await approvals.decline(vault, principal_of(request), identity_of(request))
    return await answer(request, approval_json(approval, vault.clock()))


async def withdraw_request(request: web.Request) -> web.Response:
    """Take one's own request back."""
    vault = vault_of(request)
    approval = await approvals.withdraw(vault, principal_of(request), identity_of(request))
    return await answer(request, approval_json(approval, vault.clock()))


# ---- Approvals. ---------------------------------------------------------------------------------

ROUTES = (
    Route(
        "POST",
        "/v1/approvals",
        request_approval,
        "Ask for an act that takes four eyes",
        201,
        "Approval",
        body="NewApproval",
        headers=IDEMPOTENCY,
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/approvals",
        list_approvals,
        "List what was asked for, newest first",
        200,
        "ApprovalPage",
        query=PAGE,
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/actions/approve",
        approve_request,
        "Agree to what somebody else asked for",
        200,
        "Approval",
        refusals=(409,),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/actions/decline",
        decline_request,
        "Refuse what somebody else asked for, agreed to or not",
        200,
        "Approval",
        refusals=(409,),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/actions/withdraw",
        withdraw_request,
        "Take one's own request back, agreed to or not",
        200,
        "Approval",
        refusals=(409,),
    ),
)
