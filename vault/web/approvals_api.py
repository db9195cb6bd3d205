"""The API of approvals: ask for what takes four eyes, look at it, agree, decline, withdraw."""

from aiohttp import web

from vault.actions import approvals
from vault.actions.once import encode_cursor
from vault.domain.approvals import Act, Terms
from vault.errors import InvalidRequestError
from vault.web.approvals_schemas import approval_json
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
