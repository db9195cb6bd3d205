"""The routes that machines ask, without a token."""

from vault.web import health
from vault.web.routes.route import Route

ROUTES = (
    Route("GET", "/healthz", health.alive, "Is the process up?", 200, "Health", public=True),
    Route(
        "GET",
        "/readyz",
        health.ready,
        "Could a document be handed out?",
        200,
        "Readiness",
        query={"region": "Look at this region alone."},
        refusals=(404, 422, 503),
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
