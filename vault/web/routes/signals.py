"""The routes of signals."""

from vault.web import signals_api as api
from vault.web.routes.route import PAGE, Route

ROUTES = (
    Route(
        "GET",
        "/v1/signals",
        api.list_deliveries,
        "List signals and how their deliveries fare, newest first",
        200,
        "SignalPage",
        query={"state": "waiting, delivered or dead.", **PAGE},
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
