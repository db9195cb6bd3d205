"""The routes of break-glass."""

from vault.web import break_glass_api
from vault.web.routes.route import PAGE, Route

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
        refusals=(401, 422, 503),
        # Who opens it may have nothing else; the credential is in the body.
        public=True,
        knows=True,
    ),
    Route(
        "GET",
        "/v1/break-glass",
        break_glass_api.list_break_glass,
        "List sealed credentials, newest first",
        200,
        "BreakGlassPage",
        query=PAGE,
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/break-glass/{id}/actions/revoke",
        break_glass_api.revoke_break_glass,
        "Revoke a sealed credential, and the token it was opened for",
        200,
        "SealedCredential",
    ),
)
