"""The routes that carriers call, and the one that tells them which order they speak of."""

import logging
import math
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from vault.actions.orders import link_order, take_event
from vault.domain import carriers
from vault.domain.carriers import CarrierEvent, Ignored, Reason
from vault.errors import InvalidRequestError, NotFoundError, UnauthenticatedError, VaultError
from vault.web.health import HOOKS, UNSIGNED
from vault.web.problems import INTERNAL, type_of
from vault.web.requests import identity_of, json_fields, needed, principal_of, small_body, vault_of
from vault.web.route import Parameter, Route

# ---- Carriers' webhooks. No token: each authenticates by its own signature, or is refused. ------
#
# What changes nothing is answered with the reason as a code, counted, and written down without
# numbers and references: what does not match is a fault of set-up that nobody else sees.

BODY_BYTES_MAX = 256 * 1024
#: Of a form; Twilio's have some twenty.
FIELDS_MAX = 1000
UNSIGNED_SECONDS = 60.0
log = logging.getLogger(__name__)


async def telnyx_hook(request: web.Request) -> web.Response:
    """Take a webhook of Telnyx."""
    return await _take(request, carriers.TELNYX, _telnyx_event)


def _telnyx_event(request: web.Request, body: bytes) -> CarrierEvent | Ignored:
    vault = vault_of(request)
    key = _configured(vault.config.telnyx_public_key)
    carriers.check_telnyx(request.headers, body, key, vault.clock())
    return carriers.read_telnyx(body)


async def twilio_hook(request: web.Request) -> web.Response:
    """Take a webhook of Twilio."""
    return await _take(request, carriers.TWILIO, _twilio_event)


def _twilio_event(request: web.Request, body: bytes) -> CarrierEvent | Ignored:
    config = vault_of(request).config
    token = _configured(config.twilio_auth_token)
    url = _configured(config.public_url).rstrip("/") + request.path_qs
    is_json = "json" in request.headers.get(hdrs.CONTENT_TYPE, "")
    text = "" if is_json else body.decode("utf-8", "replace")
    try:
        form = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise InvalidRequestError(f"a form has at most {FIELDS_MAX} fields") from None
    signed = carriers.check_twilio(request.headers, body, form, url, request.query, token)
    return carriers.read_twilio(body, form, signed)


async def bandwidth_hook(request: web.Request) -> web.Response:
    """Take a webhook of Bandwidth."""
    return await _take(request, carriers.BANDWIDTH, _bandwidth_event)


def _bandwidth_event(request: web.Request, body: bytes) -> CarrierEvent | Ignored:
    credentials = _configured(vault_of(request).config.bandwidth_credentials)
    carriers.check_bandwidth(request.headers, credentials)
    return carriers.read_bandwidth(body)


def _configured(secret: str) -> str:
    if not secret:
        raise UnauthenticatedError("this carrier's webhooks are not set up here")
    return secret


async def _take(
    request: web.Request,
    carrier: str,
    read: Callable[[web.Request, bytes], CarrierEvent | Ignored],
) -> web.Response:
    counts = request.app[HOOKS]
    try:
        event = read(request, await small_body(request, BODY_BYTES_MAX))
        taken = (
            event.reason
            if isinstance(event, Ignored)
            else await take_event(vault_of(request), event)
        )
    except VaultError as error:
        _refuse(request, carrier, error)
        raise
    if isinstance(taken, Reason):
        counts.labels(carrier, "ignored", taken.value).inc()
        log.warning("a webhook of %s was ignored: %s", carrier, taken.value)
        return web.json_response({"result": "ignored", "reason": taken.value})
    result = "taken" if taken else "known"
    counts.labels(carrier, result, "").inc()
    return web.json_response({"result": result})


def _refuse(request: web.Request, carrier: str, error: VaultError) -> None:
    """Count what is refused, and write it down: of strangers, who may be many, once a minute."""
    kind = INTERNAL if (found := type_of(error)) is None else found
    reason = Reason.NO_ORDER.value if isinstance(error, NotFoundError) else kind.name
    request.app[HOOKS].labels(carrier, "refused", reason).inc()
    if isinstance(error, UnauthenticatedError):
        said, now = request.app[UNSIGNED], time.monotonic()
        if now < said.get(carrier, -math.inf) + UNSIGNED_SECONDS:
            return
        said[carrier] = now
    log.warning("a webhook of %s was refused: %s", carrier, reason)


async def link_carrier(request: web.Request) -> web.Response:
    """Say what a carrier calls an order."""
    fields = await json_fields(request, carrier=str, reference=str)
    carrier, reference = needed(fields, "carrier"), needed(fields, "reference")
    await link_order(
        vault_of(request), principal_of(request), identity_of(request), carrier, reference
    )
    return web.json_response({"carrier": carrier, "reference": reference})


# ---- Hooks. -------------------------------------------------------------------------------------

_REFUSALS = (401, 422, 503)

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{id}/actions/link",
        link_carrier,
        "Say what a carrier calls an order, so that its webhooks find it",
        200,
        "CarrierLink",
        body="CarrierLink",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/hooks/telnyx",
        telnyx_hook,
        "Take a webhook of Telnyx, signed with Ed25519",
        200,
        "HookResult",
        body="application/json",
        headers={
            "telnyx-signature-ed25519": Parameter("Over timestamp|body, in base64."),
            "telnyx-timestamp": Parameter("Seconds; at most five minutes off."),
        },
        refusals=_REFUSALS,
        public=True,
    ),
    Route(
        "POST",
        "/v1/hooks/twilio",
        twilio_hook,
        "Take a webhook of Twilio, signed with HMAC-SHA1",
        200,
        "HookResult",
        body="application/json",
        query={"bodySHA256": Parameter("Of a JSON body.")},
        headers={
            "X-Twilio-Signature": Parameter("Over the address and the form's fields, in base64.")
        },
        refusals=_REFUSALS,
        public=True,
    ),
    Route(
        "POST",
        "/v1/hooks/bandwidth",
        bandwidth_hook,
        "Take a webhook of Bandwidth, with basic authentication",
        200,
        "HookResult",
        body="application/xml",
        refusals=_REFUSALS,
        public=True,
    ),
)
