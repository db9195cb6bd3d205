"""The routes of signals."""

from vault.web import signals_api as api
from vault.web.routes.route import PAGE, Route
from vault.web.shapes import Parameter, one_of

ROUTES = (
    Route(
        "GET",
        "/v1/signals",
        api.list_deliveries,
        "List signals and how their deliveries fare, newest first",
        200,
        "SignalPage",
        query={"state": Parameter("Only those in this state.", one_of(api.STATES)), **PAGE},
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/signals/{id}/actions/replay",
        api.replay_delivery,
        "Send a signal again to every endpoint",
        200,
        "Replayed",
    ),
)
