"""The OpenAPI 3.1 document, made from the table of routes."""

import re
from functools import cache
from typing import Any

from vault import __version__
from vault.web.problems import MEDIA_TYPE, TYPES, ProblemType
from vault.web.routes import AREAS, Route
from vault.web.schemas import SCHEMAS
from vault.web.shapes import ID, REGION, STRING, Parameter, reference

# What every route may answer: is it HTTP, and plain, does it come over TLS, is it a name at all.
_ALWAYS = (400, 403, 404, 413, 415, 417, 500)
# And every authenticated one: who asks, how much, is it all up.
_AUTHENTICATED = (401, 429, 503)
#: What is sent and handed out byte by byte. `format` is for generators, which know no other word.
_BINARY = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_BYTES = "application/octet-stream"
_TEXTS = ("text/", "application/jsonl")
_IN_PATH = {"id": ID, "region": REGION}


@cache
def openapi() -> dict[str, Any]:
    """Return the document: always the same object, which nobody changes."""
    paths: dict[str, dict[str, Any]] = {}
    for area in AREAS:
        for route in area.routes:
            operation = {"tags": [area.name], **_operation(route)}
            paths.setdefault(_path(route), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Portvault",
            "version": __version__,
            "description": "A vault for number-porting identity proofs. Errors are RFC 9457 "
            "problems, told apart by their type; times are RFC 3339 in UTC.",
        },
        "tags": [{"name": area.name, "description": area.text} for area in AREAS],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "carrier": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "telnyx-signature-ed25519",
                    "description": "The carrier's own signature; each operation names its own.",
                },
            },
        },
    }


def _path(route: Route) -> str:
    """Return the path without what the router alone needs: which part may hold slashes."""
    return re.sub(r"{(\w+):[^}]+}", r"{\1}", route.path)


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": _security(route),
    }
    if route.body == "file":
        # First what says nothing of the type: the vault looks for itself.
        content = {media_type: {"schema": _BINARY} for media_type in (_BYTES, *route.files)}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.body:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    return operation


def _security(route: Route) -> list[dict[str, Any]]:
    """Return how an operation is authenticated: by a token, or by a carrier's own signature."""
    if not route.public:
        return [{"token": []}]
    if route.knows:
        return [{}, {"token": []}]
    return [{"carrier": []}] if 401 in route.refusals else []


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": _IN_PATH.get(name, STRING)}
        for name in re.findall(r"{(\w+)}", _path(route))
    ]
    for place, items in (("query", route.query), ("header", route.headers)):
        found += [_parameter(place, name, item) for name, item in items.items()]
    return found


def _parameter(place: str, name: str, item: Parameter) -> dict[str, Any]:
    shown = {"name": name, "in": place, "description": item.text, "schema": item.schema}
    return {**shown, "required": True} if item.required else shown


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(route.success): {"description": "Done", "content": _content(route.answer)}
    }
    asked = () if route.public else _AUTHENTICATED
    for status in sorted({*_ALWAYS, *asked, *route.refusals}):
        responses[str(status)] = {
            "description": "; ".join(f"{one.title} ({one.name})" for one in _types(status)),
            "content": {MEDIA_TYPE: {"schema": reference("Problem")}},
        }
    return responses


def _types(status: int) -> list[ProblemType]:
    return [kind for kind in TYPES if kind.status == status]


def _content(name: str) -> dict[str, Any]:
    if name == _BYTES:
        return {name: {"schema": _BINARY}}
    if name.startswith(_TEXTS):
        return {name: {"schema": STRING}}
    if "/" in name:
        return {name: {"schema": {}}}
    return {"application/json": {"schema": reference(name)}}
