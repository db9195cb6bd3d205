"""The API of credentials: labels of tokens, and break-glass."""

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from vault.actions.credentials import (
    create_envelope,
    list_envelopes,
    open_envelope,
    revoke_envelope,
)
from vault.actions.credentials import rename_token as rename
from vault.actions.once import encode_cursor
from vault.domain.access import Role
from vault.domain.credentials import Envelope, State
from vault.errors import InvalidRequestError
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
from vault.web.route import (
    ID,
    MAYBE_STRING,
    MAYBE_TIME,
    PAGE,
    REGION,
    STRING,
    TIME,
    Route,
    one_of,
    structure,
    time_text,
)

# ---- The API of tokens: what they are called. They are made and revoked on the vault's own
# machine.


async def rename_token(request: web.Request) -> web.Response:
    """Give a token another label."""
    fields = await json_fields(request, label=str)
    identity, label = identity_of(request), needed(fields, "label")
    await rename(vault_of(request), principal_of(request), identity, label)
    return web.json_response({"id": str(identity), "label": label})


# ---- The routes of tokens. ----------------------------------------------------------------------

TOKEN_ROUTES = (
    Route(
        "POST",
        "/v1/tokens/{id}/actions/rename",
        rename_token,
        "Give a token another label; what it did before keeps the one of then",
        200,
        "TokenLabel",
        body="NewTokenLabel",
        refusals=(422,),
    ),
)


# ---- JSON shapes of break-glass. ----------------------------------------------------------------

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


def envelope_json(envelope: Envelope, now: datetime) -> dict[str, Any]:
    """Return a sealed credential, without anything that opens it."""
    return {
        "id": str(envelope.id),
        "role": envelope.role,
        "regions": list(envelope.regions),
        "state": envelope.state(now).value,
        "sealed_by": envelope.sealed_by,
        "sealed_at": time_text(envelope.sealed_at),
        "expires_at": time_text(envelope.expires_at),
        "opened_at": time_text(envelope.opened_at),
        "opened_by": envelope.opened_by,
        "token": str(envelope.token) if envelope.token else None,
        "revoked_at": time_text(envelope.revoked_at),
        "revoked_by": envelope.revoked_by,
    }


# ---- The API of break-glass: seal a credential, open it, list and revoke them. ------------------


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
    identity, secret, expires_at = await create_envelope(
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
    token, until = await open_envelope(
        vault_of(request),
        needed(fields, "credential"),
        needed(fields, "reference"),
        request.get(PRINCIPAL),
    )
    return web.json_response({"token": token, "expires_at": time_text(until)}, status=201)


async def list_break_glass(request: web.Request) -> web.Response:
    """List sealed credentials, newest first."""
    vault, limit = vault_of(request), page_limit(request)
    found = await list_envelopes(vault, principal_of(request), time_cursor(request), limit + 1)
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].sealed_at, page[-1].id) if more else None
    data = [envelope_json(envelope, vault.clock()) for envelope in page]
    return await answer(request, {"data": data, "next_cursor": cursor})


async def revoke_break_glass(request: web.Request) -> web.Response:
    """Revoke a sealed credential."""
    vault = vault_of(request)
    envelope = await revoke_envelope(vault, principal_of(request), identity_of(request))
    return await answer(request, envelope_json(envelope, vault.clock()))


# ---- The routes of break-glass. -----------------------------------------------------------------

BREAK_GLASS_ROUTES = (
    Route(
        "POST",
        "/v1/break-glass",
        seal_break_glass,
        "Seal a credential for the day the identity provider is down",
        201,
        "BreakGlass",
        body="NewBreakGlass",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/break-glass/actions/open",
        open_break_glass,
        "Open a sealed credential, once, for a token of an hour",
        201,
        "BreakGlassToken",
        body="BreakGlassOpening",
        refusals=(401, 422, 503),
        # Who opens it may have nothing else; the credential is in the body.
        public=True,
        knows=True,
    ),
    Route(
        "GET",
        "/v1/break-glass",
        list_break_glass,
        "List sealed credentials, newest first",
        200,
        "BreakGlassPage",
        query=PAGE,
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/break-glass/{id}/actions/revoke",
        revoke_break_glass,
        "Revoke a sealed credential, and the token it was opened for",
        200,
        "SealedCredential",
    ),
)
