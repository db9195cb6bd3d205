"""The API of break-glass: seal a credential, and open it."""

from uuid import UUID

from aiohttp import web

from vault.actions.break_glass import open_credential, seal_credential
from vault.errors import InvalidRequestError
from vault.web.requests import json_fields, needed, principal_of, vault_of
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
        vault_of(request), needed(fields, "credential"), needed(fields, "reference")
    )
    return web.json_response({"token": token, "expires_at": time_text(until)}, status=201)
