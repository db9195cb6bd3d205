"""The routes of approvals."""

from vault.web import approvals_api
from vault.web.routes.route import IDEMPOTENCY, PAGE, Route

ROUTES = (
    Route(
        "POST",
        "/v1/approvals",
        approvals_api.request_approval,
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
        approvals_api.list_approvals,
        "List what was asked for, newest first",
        200,
        "ApprovalPage",
        query=PAGE,
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/actions/approve",
        approvals_api.approve_request,
        "Agree to what somebody else asked for",
        200,
        "Approval",
        refusals=(409,),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/actions/decline",
        approvals_api.decline_request,
        "Refuse what somebody else asked for, agreed to or not",
        200,
        "Approval",
        refusals=(409,),
    ),
    Route(
        "POST",
        "/v1/approvals/{id}/actions/withdraw",
        approvals_api.withdraw_request,
        "Take one's own request back, agreed to or not",
        200,
        "Approval",
        refusals=(409,),
    ),
)
