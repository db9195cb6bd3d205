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
)
from vault.web.routes.route import Route

__all__ = ["ROUTES", "Route"]

ROUTES = (
    *orders.ROUTES,
    *hooks.ROUTES,
    *documents.ROUTES,
    *retention.ROUTES,
    *signals.ROUTES,
    *certificates.ROUTES,
    *faxes.ROUTES,
    *approvals.ROUTES,
    *break_glass.ROUTES,
    *log.ROUTES,
    *health.ROUTES,
)
