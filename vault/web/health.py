"""What machines ask a process: is it up, can it serve, how does it do, what can it be asked."""

import asyncio
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vault.errors import DatabaseUnavailableError
from vault.meter import Meter
from vault.sql.connection import connection
from vault.web.requests import VAULT

READY_TIMEOUT_SECONDS = 3.0

REGISTRY = web.AppKey("registry", CollectorRegistry)
OPENAPI = web.AppKey("openapi", dict)


class Metrics:
    """Counts and times of requests, by route and status; never by anything a client chose."""

    def __init__(self, registry: CollectorRegistry, meter: Meter) -> None:
        self.requests = Counter(
            "portvault_requests_total",
            "Requests.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "portvault_request_seconds", "Time to answer.", ["route"], registry=registry
        )
        limits = Gauge(
            "portvault_limit_signals",
            "How often a principal came near its limit of reads, reached it, or broke the glass.",
            ["level"],
            registry=registry,
        )
        for level in meter.signals:
            limits.labels(level).set_function(partial(meter.signals.__getitem__, level))


async def alive(request: web.Request) -> web.Response:
    """Answer that the process runs."""
    del request
    return web.json_response({"status": "alive"})


async def ready(request: web.Request) -> web.Response:
    """Answer whether the database can be reached; 503 where it cannot."""
    try:
        async with (
            asyncio.timeout(READY_TIMEOUT_SECONDS),
            connection(request.app[VAULT].pool) as conn,
        ):
            await conn.fetchval("select 1")
    except TimeoutError:
        raise DatabaseUnavailableError from None
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """Answer in the Prometheus text format."""
    return web.Response(
        body=generate_latest(request.app[REGISTRY]), content_type="text/plain", charset="utf-8"
    )


async def openapi_document(request: web.Request) -> web.Response:
    """Answer the OpenAPI document."""
    return web.json_response(request.app[OPENAPI])
