"""The routes of break-glass."""

from vault.web import break_glass_api
from vault.web.routes.route import Route

ROUTES = (
    Route(
        "POST",
        "/v1/break-glass",
        break_glass_api.seal_break_glass,
        "Seal a credential for the day the identity provider is down",
        201,
        "BreakGlass",
        body="NewBreakGlass",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/break-glass/actions/open",
        break_glass_api.open_break_glass,
        "Open a sealed credential, once, for a token of an hour",
        201,
        "BreakGlassToken",
        body="BreakGlassOpening",
        refusals=(403, 404, 422, 503),
        # Who opens it has nothing else; the credential is in the body.
        public=True,
    ),
)
