"""The OpenAPI document says what the server does."""

from aiohttp import web
from openapi_spec_validator import validate

from tests.fixtures_server import Api
from vault.context import Vault
from vault.web.openapi import openapi
from vault.web.routes.console import CONSOLE_ROUTES
from vault.web.server import make_app


def test_the_document_is_valid_openapi() -> None:
    """The document passes the specification's own schema."""
    document = openapi()
    validate(document)
    assert document["openapi"].startswith("3.1")


async def test_routes_and_document_agree(vault: Vault) -> None:
    """Every route is described and everything described is routed."""
    app = make_app(vault)
    routed = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and isinstance(route.resource, web.Resource)
    }
    routed -= {(route.method.lower(), route.path) for route in CONSOLE_ROUTES}
    described = {
        (method, path) for path, operations in openapi()["paths"].items() for method in operations
    }
    assert routed == described


async def test_every_described_route_asks_for_a_token_unless_public(api: Api) -> None:
    """Without a token each operation answers as its `security` says."""
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            url = api.url + path.replace("{id}", "00000000-0000-4000-8000-000000000000")
            url = url.replace("{region}", "uk").replace("{path}", "0/000")
            async with api.session.request(method, url) as response:
                needed = bool(operation["security"]) and {} not in operation["security"]
                assert (response.status == 401) == needed, (method, path)
                assert str(response.status) in operation["responses"]
