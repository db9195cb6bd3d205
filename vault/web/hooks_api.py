"""
Carriers' webhooks. No token: each authenticates by its own signature, or is refused.

What is signed and changes nothing is answered with the reason as a code, counted, and written down
without numbers and references: what does not match is a fault of set-up that nobody else sees.
"""

import logging
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from prometheus_client import Counter

from vault.actions.order_events import link_order, take_event
from vault.domain import carriers
from vault.domain.carriers import CarrierEvent, Ignored, Reason
from vault.errors import InvalidRequestError, NotFoundError, UnauthenticatedError
from vault.web.health import HOOKS
from vault.web.requests import identity_of, json_fields, needed, principal_of, small_body, vault_of

BODY_BYTES_MAX = 256 * 1024
#: Of a form; Twilio's have some twenty.
FIELDS_MAX = 1000
log = logging.getLogger(__name__)


async def telnyx_hook(request: web.Request) -> web.Response:
    """Take a webhook of Telnyx."""
    vault, body = vault_of(request), await _body(request)
    key = _configured(vault.config.telnyx_public_key)
    carriers.check_telnyx(request.headers, body, key, vault.clock())
    return await _take(request, carriers.TELNYX, carriers.read_telnyx(body))


async def twilio_hook(request: web.Request) -> web.Response:
    """Take a webhook of Twilio."""
    vault, body = vault_of(request), await _body(request)
    token = _configured(vault.config.twilio_auth_token)
    url = _configured(vault.config.public_url).rstrip("/") + request.path_qs
    is_json = "json" in request.headers.get(hdrs.CONTENT_TYPE, "")
    text = "" if is_json else body.decode("utf-8", "replace")
    try:
        form = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise InvalidRequestError(f"a form has at most {FIELDS_MAX} fields") from None
    signed = carriers.check_twilio(request.headers, body, form, url, request.query, token)
    return await _take(request, carriers.TWILIO, carriers.read_twilio(body, form, signed))


async def bandwidth_hook(request: web.Request) -> web.Response:
    """Take a webhook of Bandwidth."""
    vault, body = vault_of(request), await _body(request)
    carriers.check_bandwidth(request.headers, _configured(vault.config.bandwidth_credentials))
    return await _take(request, carriers.BANDWIDTH, carriers.read_bandwidth(body))


def _configured(secret: str) -> str:
    if not secret:
        raise UnauthenticatedError("this carrier's webhooks are not set up here")
    return secret


async def _body(request: web.Request) -> bytes:
    return await small_body(request, BODY_BYTES_MAX)


async def _take(request: web.Request, carrier: str, event: CarrierEvent | Ignored) -> web.Response:
    counts = request.app[HOOKS]
    if isinstance(event, Ignored):
        return _ignored(counts, carrier, event.reason)
    try:
        taken = await take_event(vault_of(request), event)
    except NotFoundError:
        counts.labels(carrier, "refused", Reason.NO_ORDER.value).inc()
        log.warning("a webhook of %s was refused: %s", carrier, Reason.NO_ORDER.value)
        raise
    if isinstance(taken, Reason):
        return _ignored(counts, carrier, taken)
    result = "taken" if taken else "known"
    counts.labels(carrier, result, "").inc()
    return web.json_response({"result": result})


def _ignored(counts: Counter, carrier: str, reason: Reason) -> web.Response:
    counts.labels(carrier, "ignored", reason.value).inc()
    log.warning("a webhook of %s was ignored: %s", carrier, reason.value)
    return web.json_response({"result": "ignored", "reason": reason.value})


async def link_carrier(request: web.Request) -> web.Response:
    """Say what a carrier calls an order."""
    fields = await json_fields(request, carrier=str, reference=str)
    carrier, reference = needed(fields, "carrier"), needed(fields, "reference")
    await link_order(
        vault_of(request), principal_of(request), identity_of(request), carrier, reference
    )
    return web.json_response({"carrier": carrier, "reference": reference})
