"""The routes of faxes."""

from vault.domain.fax_numbers import FACTS
from vault.domain.faxes import Channel, Direction, State
from vault.web import fax_api
from vault.web.routes.route import IDEMPOTENCY, PAGE, Route

ROUTES = (
    Route(
        "POST",
        "/v1/faxes",
        fax_api.receive,
        "Take a fax into custody",
        201,
        "Fax",
        body="file",
        query={
            "region": "The recipient's, where the number does not tell it.",
            "direction": ", ".join(Direction),
            "from": "E.164; left out or `anonymous` where the caller withholds it.",
            "to": "E.164.",
            **dict.fromkeys(FACTS, "What the gateway knows of the call."),
        },
        headers={
            **IDEMPOTENCY,
            "Content-Digest": "sha-256=:BASE64:; checked where it is sent.",
        },
        refusals=(400, 409, 413, 415, 422),
    ),
    Route(
        "GET",
        "/v1/faxes",
        fax_api.list_all,
        "List faxes and receipts, newest first",
        200,
        "FaxPage",
        query={
            "direction": ", ".join(Direction),
            "state": ", ".join(State),
            "channel": ", ".join(Channel),
            **PAGE,
        },
        refusals=(422,),
    ),
    Route("GET", "/v1/faxes/{id}", fax_api.show, "Show a fax, or its receipt", 200, "Fax"),
    Route(
        "GET",
        "/v1/faxes/{id}/content",
        fax_api.read,
        "Fetch a fax to deliver it",
        200,
        "application/octet-stream",
        query={"alone": "true: not while another attempt is under way (409)."},
        headers={"Access-Purpose": "deliver-fax, which is meant where it is left out."},
        refusals=(409, 410, 422, 423, 451),
    ),
    Route(
        "POST",
        "/v1/faxes/{id}/actions/deliver",
        fax_api.deliver,
        "Acknowledge that a fax was delivered",
        200,
        "Fax",
        body="FaxDelivered",
        refusals=(409, 413, 422),
    ),
    Route(
        "POST",
        "/v1/faxes/{id}/actions/fail",
        fax_api.fail,
        "Say that a delivery failed",
        200,
        "Fax",
        body="FaxFailed",
        refusals=(409, 413, 422),
    ),
)
