"""
The table of routes, a file for each area.

A route that is not here does not exist, so none can be served without a description.
"""

from vault.web.routes import (
    approvals,
    break_glass,
    certificates,
    documents,
    faxes,
    health,
    hooks,
    log,
    orders,
    retention,
    signals,
    tokens,
)
from vault.web.routes.route import Area, Route

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
    Area("break-glass", "Credentials for the day that nobody can sign in.", break_glass.ROUTES),
    Area("tokens", "What tokens are called.", tokens.ROUTES),
    Area("log", "The access log, and what proves it.", log.ROUTES),
    Area("health", "What machines ask.", health.ROUTES),
)
ROUTES = tuple(route for area in AREAS for route in area.routes)
