"""The OpenAPI document says what the server does."""

import re
from typing import Any

from aiohttp import web
from openapi_spec_validator import validate

from tests.fixtures_server import Api
from vault.context import Vault
from vault.domain.access import Purpose
from vault.domain.documents import Kind
from vault.domain.orders import Status
from vault.domain.regions import REGIONS
from vault.web.console.handlers import CONSOLE_ROUTES
from vault.web.routes import openapi
from vault.web.server import make_app


def test_the_document_is_valid_openapi() -> None:
    """The document passes the specification's own schema."""
    document = openapi()
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_operations_have_names_and_areas() -> None:
    """Each operation has a name of its own, a verb and a noun, and stands under one known tag."""
    document = openapi()
    operations = [one for path in document["paths"].values() for one in path.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    tags = {tag["name"] for tag in document["tags"]}
    assert all(len(one["tags"]) == 1 for one in operations)
    assert {one["tags"][0] for one in operations} == tags


def test_words_of_an_enumeration_are_listed() -> None:
    """Wherever a region, kind, purpose or status is sent or answered, its words are named."""
    document, schemas = openapi(), openapi()["components"]["schemas"]
    assert schemas["Region"]["enum"] == list(REGIONS)
    assert schemas["Kind"]["enum"] == list(Kind)
    assert schemas["Purpose"]["enum"] == list(Purpose)
    assert schemas["OrderStatus"]["enum"] == list(Status)
    places = [
        (one["operationId"], item["name"], item["schema"])
        for path in document["paths"].values()
        for one in path.values()
        for item in one["parameters"]
    ]
    places += [
        (name, field, said)
        for name, schema in schemas.items()
        for field, said in schema.get("properties", {}).items()
    ]
    # A record of the log says what was a word when it was made.
    past = {"AccessRecord", "Problem"}
    wanted = {"region", "kind", "purpose", "Access-Purpose", "status", "state", "direction", "role"}
    wanted |= {"action", "act", "carrier", "channel", "custody", "phase"}
    bare = [
        (name, field)
        for name, field, said in places
        if field in wanted and name not in past and not has_words(said)
    ]
    assert bare == []


def has_words(schema: dict[str, Any]) -> bool:
    """Whether a schema, or one that it may be, stands under a name or lists its words."""
    if "anyOf" in schema:
        return any(map(has_words, schema["anyOf"]))
    return bool({"$ref", "enum"} & schema.keys())


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
