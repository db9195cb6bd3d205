"""The routes of tokens."""

from vault.web import tokens_api
from vault.web.routes.route import Route

ROUTES = (
    Route(
        "POST",
        "/v1/tokens/{id}/actions/rename",
        tokens_api.rename_token,
        "Give a token another label; what it did before keeps the one of then",
        200,
        "TokenLabel",
        body="NewTokenLabel",
        refusals=(422,),
    ),
)
