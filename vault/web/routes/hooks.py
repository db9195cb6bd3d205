"""The routes that carriers call, and the one that tells them which order they speak of."""

from vault.web import hooks_api as api
from vault.web.routes.route import Route
from vault.web.shapes import Parameter

_REFUSALS = (401, 422, 503)

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{id}/actions/link",
        api.link_carrier,
        "Say what a carrier calls an order, so that its webhooks find it",
        200,
        "CarrierLink",
        body="CarrierLink",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/hooks/telnyx",
        api.telnyx_hook,
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
        api.twilio_hook,
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
        api.bandwidth_hook,
        "Take a webhook of Bandwidth, with basic authentication",
        200,
        "HookResult",
        body="application/xml",
        refusals=_REFUSALS,
        public=True,
    ),
)
