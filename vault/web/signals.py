"""The routes of signals."""

from typing import Any

from aiohttp import web

from vault.actions.signals import list_signals, replay_signal
from vault.domain.signals import SignalType
from vault.errors import InvalidRequestError
from vault.sql.signals import Delivery
from vault.web.requests import identity_of, number_cursor, page_limit, principal_of, vault_of
from vault.web.route import (
    ID,
    MAYBE_STRING,
    MAYBE_TIME,
    PAGE,
    REGION,
    STRING,
    TIME,
    Parameter,
    Route,
    one_of,
    structure,
    time_text,
)

# ---- The handlers of signals: what was told to whom, and telling it again. ----------------------

STATES = ("waiting", "delivered", "dead")
SIGNAL_SCHEMAS: dict[str, Any] = {
    "Signal": structure(
        {
            "id": ID,
            "endpoint": STRING,
            "region": REGION,
            "type": one_of(SignalType),
            "at": TIME,
            "state": {"type": "string", "enum": list(STATES)},
            "attempts": {"type": "integer"},
            "next_at": TIME,
            "last_failure": MAYBE_STRING,
            "delivered_at": MAYBE_TIME,
        }
    ),
    "SignalPage": structure(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Signal"}},
            "next_cursor": MAYBE_STRING,
        }
    ),
    "Replayed": structure({"endpoints": {"type": "integer"}}),
}


def _json(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": str(delivery.signal),
        "endpoint": delivery.endpoint,
        "region": delivery.region,
        "type": delivery.type,
        "at": time_text(delivery.at),
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_at": time_text(delivery.next_at),
        "last_failure": delivery.last_failure,
        "delivered_at": time_text(delivery.delivered_at),
    }


async def list_deliveries(request: web.Request) -> web.Response:
    """List signals and how they fare, newest first."""
    state = request.query.get("state")
    if state is not None and state not in STATES:
        raise InvalidRequestError(f"state must be one of {', '.join(STATES)}")
    limit = page_limit(request)
    before = number_cursor(request)
    found = await list_signals(vault_of(request), principal_of(request), state, before, limit + 1)
    page, more = found[:limit], len(found) > limit
    cursor = str(page[-1].number) if more else None
    return web.json_response({"data": [_json(item) for item in page], "next_cursor": cursor})


async def replay_delivery(request: web.Request) -> web.Response:
    """Send a signal again to every endpoint."""
    count = await replay_signal(vault_of(request), principal_of(request), identity_of(request))
    return web.json_response({"endpoints": count})


# ---- Signals. -----------------------------------------------------------------------------------

ROUTES = (
    Route(
        "GET",
        "/v1/signals",
        list_deliveries,
        "List signals and how their deliveries fare, newest first",
        200,
        "SignalPage",
        query={"state": Parameter("Only those in this state.", one_of(STATES)), **PAGE},
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/signals/{id}/actions/replay",
        replay_delivery,
        "Send a signal again to every endpoint",
        200,
        "Replayed",
    ),
)
