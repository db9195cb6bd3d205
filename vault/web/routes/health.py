"""The routes that machines ask, without a token."""

from vault.web import health
from vault.web.routes.route import Route
from vault.web.shapes import REGION, Parameter

ROUTES = (
    Route("GET", "/healthz", health.check_alive, "Is the process up?", 200, "Health", public=True),
    Route(
        "GET",
        "/readyz",
        health.check_ready,
        "Could a document be handed out?",
        200,
        "Readiness",
        query={"region": Parameter("Look at this region alone.", REGION)},
        refusals=(422, 503),
        public=True,
    ),
    Route(
        "GET", "/metrics", health.show_metrics, "Prometheus metrics", 200, "text/plain", public=True
    ),
    Route(
        "GET",
        "/openapi.json",
        health.show_openapi,
        "This document",
        200,
        "application/json",
        public=True,
    ),
)
