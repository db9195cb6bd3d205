"""
Carriers' webhooks. No token: each authenticates by its own signature, or is refused.

What is signed and is not of a porting order's status is answered and ignored.
"""

from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from vault.actions.order_events import link_order, take_event
from vault.context import Vault
from vault.domain import carriers
from vault.domain.carriers import CarrierEvent
from vault.errors import UnauthenticatedError
from vault.web.requests import identity_of, json_fields, needed, principal_of, small_body, vault_of

BODY_BYTES_MAX = 256 * 1024


async def telnyx_hook(request: web.Request) -> web.Response:
    """Take a webhook of Telnyx."""
    vault, body = vault_of(request), await _body(request)
    key = _configured(vault.config.telnyx_public_key)
    carriers.check_telnyx(request.headers, body, key, vault.clock())
    return await _take(vault, carriers.read_telnyx(body))


async def twilio_hook(request: web.Request) -> web.Response:
    """Take a webhook of Twilio."""
    vault, body = vault_of(request), await _body(request)
    token = _configured(vault.config.twilio_auth_token)
    url = _configured(vault.config.public_url).rstrip("/") + request.path_qs
    is_json = "json" in request.headers.get(hdrs.CONTENT_TYPE, "")
    text = "" if is_json else body.decode("utf-8", "replace")
    form = parse_qsl(text, keep_blank_values=True)
    signed = carriers.check_twilio(request.headers, body, form, url, request.query, token)
    return await _take(vault, carriers.read_twilio(body, form, signed))


async def bandwidth_hook(request: web.Request) -> web.Response:
    """Take a webhook of Bandwidth."""
    vault, body = vault_of(request), await _body(request)
    carriers.check_bandwidth(request.headers, _configured(vault.config.bandwidth_credentials))
    return await _take(vault, carriers.read_bandwidth(body))


def _configured(secret: str) -> str:
    if not secret:
        raise UnauthenticatedError("this carrier's webhooks are not set up here")
    return secret


async def _body(request: web.Request) -> bytes:
    return await small_body(request, BODY_BYTES_MAX)


async def _take(vault: Vault, event: CarrierEvent | None) -> web.Response:
    result = "ignored"
    if event is not None:
        result = "taken" if await take_event(vault, event) else "known"
    return web.json_response({"result": result})


async def link_carrier(request: web.Request) -> web.Response:
    """Say what a carrier calls an order."""
    fields = await json_fields(request, carrier=str, reference=str)
    carrier, reference = needed(fields, "carrier"), needed(fields, "reference")
    await link_order(
        vault_of(request), principal_of(request), identity_of(request), carrier, reference
    )
    return web.json_response({"carrier": carrier, "reference": reference})
