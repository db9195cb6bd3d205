"""
The table of routes, a file for each area.

A route that is not here does not exist, so none can be served without a description.
"""

import re
from functools import cache
from typing import Any

from vault import __version__
from vault.web import (
    approvals,
    certificates,
    credentials,
    documents,
    faxes,
    health,
    hooks,
    log,
    orders,
    retention,
    signals,
)
from vault.web.problems import MEDIA_TYPE, TYPES, ProblemType
from vault.web.route import ID, REGION, STRING, Area, Parameter, Route, reference
from vault.web.schemas import SCHEMAS

__all__ = ["AREAS", "ROUTES", "Area", "Route"]

AREAS = (
    Area("orders", "Porting orders.", orders.ROUTES),
    Area("carriers", "What carriers tell of orders.", hooks.ROUTES),
    Area("documents", "Documents: in, and out for a purpose.", documents.ROUTES),
    Area("retention", "Why a document is here, and what keeps it.", retention.ROUTES),
    Area("signals", "What the vault tells by webhook.", signals.ROUTES),
    Area("certificates", "Proof that something was destroyed.", certificates.ROUTES),
    Area("faxes", "Faxes that pass through.", faxes.ROUTES),
    Area("approvals", "What takes four eyes.", approvals.ROUTES),
    Area(
        "break-glass",
        "Credentials for the day that nobody can sign in.",
        credentials.BREAK_GLASS_ROUTES,
    ),
    Area("tokens", "What tokens are called.", credentials.TOKEN_ROUTES),
    Area("log", "The access log, and what proves it.", log.ROUTES),
    Area("health", "What machines ask.", health.ROUTES),
)
ROUTES = tuple(route for area in AREAS for route in area.routes)


# ---- The OpenAPI 3.1 document, made from the table of routes. -----------------------------------

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
