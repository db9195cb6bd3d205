"""The API of break-glass: seal a credential, open it, list and revoke them."""

from uuid import UUID

from aiohttp import web

from vault.actions.credentials import (
    list_credentials,
    open_credential,
    revoke_credential,
    seal_credential,
)
from vault.actions.once import encode_cursor
from vault.errors import InvalidRequestError
from vault.web.break_glass_schemas import sealed_json
from vault.web.requests import (
    PRINCIPAL,
    answer,
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    time_cursor,
    vault_of,
)
from vault.web.shapes import time_text


async def seal_break_glass(request: web.Request) -> web.Response:
    """Make a credential for the day the identity provider is down."""
    fields = await json_fields(request, role=str, regions=list, days=int, approval=str)
    regions = needed(fields, "regions")
    if not all(isinstance(region, str) for region in regions):
        raise InvalidRequestError("regions must be a list of regions")
    try:
        approval = UUID(needed(fields, "approval"))
    except ValueError:
        raise InvalidRequestError("approval must be an id") from None
    identity, secret, expires_at = await seal_credential(
        vault_of(request),
        principal_of(request),
        role=needed(fields, "role"),
        regions=regions,
        days=needed(fields, "days"),
        approval=approval,
    )
    made = {"id": str(identity), "credential": secret, "expires_at": time_text(expires_at)}
    return web.json_response(made, status=201)


async def open_break_glass(request: web.Request) -> web.Response:
    """Open a credential, once."""
    fields = await json_fields(request, credential=str, reference=str)
    token, until = await open_credential(
        vault_of(request),
        needed(fields, "credential"),
        needed(fields, "reference"),
        request.get(PRINCIPAL),
    )
    return web.json_response({"token": token, "expires_at": time_text(until)}, status=201)


async def list_break_glass(request: web.Request) -> web.Response:
    """List sealed credentials, newest first."""
    vault, limit = vault_of(request), page_limit(request)
    found = await list_credentials(vault, principal_of(request), time_cursor(request), limit + 1)
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].sealed_at, page[-1].id) if more else None
    data = [sealed_json(sealed, vault.clock()) for sealed in page]
    return await answer(request, {"data": data, "next_cursor": cursor})


async def revoke_break_glass(request: web.Request) -> web.Response:
    """Revoke a sealed credential."""
    vault = vault_of(request)
    sealed = await revoke_credential(vault, principal_of(request), identity_of(request))
    return await answer(request, sealed_json(sealed, vault.clock()))
