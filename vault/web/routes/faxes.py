"""The routes of faxes."""

from vault.domain.access import Purpose
from vault.domain.documents import PDF, TIFF
from vault.domain.faxes import FACTS, Channel, Direction, State
from vault.web import fax_api
from vault.web.routes.route import IDEMPOTENCY, PAGE, Route
from vault.web.shapes import BOOLEAN, REGION, Parameter, one_of

ROUTES = (
    Route(
        "POST",
        "/v1/faxes",
        fax_api.submit_fax,
        "Take a fax into custody",
        201,
        "Fax",
        body="file",
        files=(TIFF, PDF),
        query={
            "region": Parameter("The recipient's, where the number does not tell it.", REGION),
            "direction": Parameter("Which way it goes.", one_of(Direction), True),
            "from": Parameter("E.164; left out or `anonymous` where the caller withholds it."),
            "to": Parameter("E.164.", required=True),
            **dict.fromkeys(FACTS, Parameter("What the gateway knows of the call.")),
        },
        headers={
            **IDEMPOTENCY,
            "Content-Digest": Parameter("sha-256=:BASE64:; checked where it is sent."),
        },
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/faxes",
        fax_api.list_faxes,
        "List faxes and receipts, newest first",
        200,
        "FaxPage",
        query={
            "direction": Parameter("Only those that go this way.", one_of(Direction)),
            "state": Parameter("Only those in this state.", one_of(State)),
            "channel": Parameter("Only those that came by this.", one_of(Channel)),
            **PAGE,
        },
        refusals=(422,),
    ),
    Route("GET", "/v1/faxes/{id}", fax_api.show_fax, "Show a fax, or its receipt", 200, "Fax"),
    Route(
        "GET",
        "/v1/faxes/{id}/content",
        fax_api.read_fax,
        "Fetch a fax to deliver it",
        200,
        "application/octet-stream",
        query={"alone": Parameter("Not while another attempt is under way (409).", BOOLEAN)},
        headers={
            "Access-Purpose": Parameter(
                "deliver-fax, which is meant where it is left out.", one_of(Purpose)
            )
        },
        refusals=(409, 410, 422, 423, 451),
    ),
    Route(
        "POST",
        "/v1/faxes/{id}/actions/deliver",
        fax_api.deliver_fax,
        "Acknowledge that a fax was delivered",
        200,
        "Fax",
        body="FaxDelivered",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/faxes/{id}/actions/fail",
        fax_api.fail_fax,
        "Say that a delivery failed",
        200,
        "Fax",
        body="FaxFailed",
        refusals=(409, 422),
    ),
)
