"""The routes of the access log."""

from vault.web import log_api
from vault.web.routes.route import PAGE, Route

ROUTES = (
    Route(
        "GET",
        "/v1/access-records",
        log_api.list_access_records,
        "List access records, newest first",
        200,
        "AccessRecordPage",
        query={**log_api.RECORD_FILTERS, **PAGE},
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/checkpoint",
        log_api.show_checkpoint,
        "Show the newest signed checkpoint of a region's log",
        200,
        "text/plain",
        query={"region": "Whose log."},
    ),
)
