"""The API of tokens: what they are called. They are made and revoked on the vault's own machine."""

from aiohttp import web

from vault.actions.credentials import rename_token as rename
from vault.web.requests import identity_of, json_fields, needed, principal_of, vault_of


async def rename_token(request: web.Request) -> web.Response:
    """Give a token another label."""
    fields = await json_fields(request, label=str)
    identity, label = identity_of(request), needed(fields, "label")
    await rename(vault_of(request), principal_of(request), identity, label)
    return web.json_response({"id": str(identity), "label": label})
