"""
The table of routes: the server is built from it, and so is the OpenAPI document.

A route that is not here does not exist, so none can be served without a description.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from vault.web import api, health, log_api

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: how it is called, what it takes, and what it may answer."""

    method: str
    path: str
    handler: Handler
    summary: str
    #: Status of success, and the schema of its body: a name in SCHEMAS, or a media type.
    success: int
    answer: str
    #: The schema of a JSON body, or `file` for a document.
    body: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Statuses beside those that any authenticated route may answer.
    refusals: tuple[int, ...] = ()
    public: bool = False


_IDEMPOTENCY = {"Idempotency-Key": "The same key has its effect once."}
_PAGE = {"limit": "1 to 200, default 50.", "cursor": "next_cursor of the page before."}

ROUTES = (
    Route(
        "POST",
        "/v1/orders",
        api.create_order,
        "Open a porting order",
        201,
        "Order",
        body="NewOrder",
        headers=_IDEMPOTENCY,
        refusals=(409, 413, 422),
    ),
    Route(
        "GET",
        "/v1/orders",
        api.list_orders,
        "List porting orders, newest first",
        200,
        "OrderPage",
        query=_PAGE,
        refusals=(422,),
    ),
    Route("GET", "/v1/orders/{id}", api.show_order, "Show a porting order", 200, "Order"),
    Route(
        "PATCH",
        "/v1/orders/{id}",
        api.change_order,
        "Move a porting order along the carrier's status axis",
        200,
        "Order",
        body="OrderChange",
        refusals=(409, 413, 422),
    ),
    Route(
        "POST",
        "/v1/orders/{id}/documents",
        api.ingest_document,
        "Take a document into custody",
        201,
        "Document",
        body="file",
        query={"kind": "passport, national_id, drivers_licence, loa, …"},
        headers={
            **_IDEMPOTENCY,
            "Content-Disposition": "attachment; filename=…; kept sealed with the document.",
            "Content-Digest": "sha-256=:BASE64:; checked where it is sent.",
        },
        refusals=(400, 409, 413, 415, 422),
    ),
    Route(
        "GET",
        "/v1/documents/{id}",
        api.show_document,
        "Show a document's custody and retention",
        200,
        "Document",
    ),
    Route(
        "GET",
        "/v1/documents/{id}/content",
        api.read_content,
        "Read a document for a stated purpose",
        200,
        "application/octet-stream",
        headers={
            "Access-Purpose": "verify-identity, submit-to-carrier, resolve-exception, …",
            "Access-Reference": "The ticket or order that some purposes need.",
        },
        refusals=(409, 410, 422, 423, 451),
    ),
    Route(
        "POST",
        "/v1/documents/{id}/actions/shred",
        api.shred_document,
        "Put a document beyond use",
        200,
        "Document",
        body="ShredReason",
        refusals=(409, 413, 422, 423),
    ),
    Route(
        "GET",
        "/v1/documents/{id}/certificate",
        api.show_certificate,
        "Show the certificate of destruction",
        200,
        "Certificate",
        refusals=(409,),
    ),
    Route(
        "GET",
        "/v1/access-records",
        log_api.list_access_records,
        "List access records, newest first",
        200,
        "AccessRecordPage",
        query={**log_api.RECORD_FILTERS, **_PAGE},
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
    Route("GET", "/healthz", health.alive, "Is the process up?", 200, "Health", public=True),
    Route(
        "GET",
        "/readyz",
        health.ready,
        "Can it serve?",
        200,
        "Health",
        refusals=(503,),
        public=True,
    ),
    Route("GET", "/metrics", health.metrics, "Prometheus metrics", 200, "text/plain", public=True),
    Route(
        "GET",
        "/openapi.json",
        health.openapi_document,
        "This document",
        200,
        "application/json",
        public=True,
    ),
)
