"""The OpenAPI 3.1 document, made from the table of routes."""

import re
from typing import Any

from vault import __version__
from vault.web.problems import TITLES
from vault.web.routes import ROUTES, Route
from vault.web.schemas import SCHEMAS

# What every authenticated route may answer: who, may they, does it exist, how much, is it all up.
_ALWAYS = (401, 403, 404, 429, 500, 503)


def openapi() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(_path(route), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Portvault",
            "version": __version__,
            "description": "A vault for number-porting identity proofs. Errors are RFC 9457 "
            "problems; times are RFC 3339 in UTC.",
        },
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
        binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
        operation["requestBody"] = {"required": True, "content": {"*/*": binary}}
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
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", _path(route))
    ]
    for place, items in (("query", route.query), ("header", route.headers)):
        found += [
            {"name": name, "in": place, "description": text, "schema": {"type": "string"}}
            for name, text in items.items()
        ]
    return found


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(route.success): {"description": "Done", "content": _content(route.answer)}
    }
    always = (500,) if route.public else _ALWAYS
    # A body can be cut short, or come too slowly.
    body = (400, 413) if route.body else ()
    for status in sorted({*always, *body, *route.refusals}):
        responses[str(status)] = {
            "description": TITLES[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
    return responses


def _content(name: str) -> dict[str, Any]:
    if "/" in name:
        return {name: {"schema": {}}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
