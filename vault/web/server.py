"""
The HTTP server: middlewares around the table of routes.

From outside in: headers and metrics, errors to problems, authentication, the handler.
"""

import time
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry

from vault.actions.receive import too_large
from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import ForbiddenError, NotFoundError, UnavailableError
from vault.web.auth import Authenticator
from vault.web.health import OPENAPI, READINESS, REGISTRY, Metrics, Readiness
from vault.web.not_http import answer_ourselves
from vault.web.openapi import openapi
from vault.web.problems import Handler, problem, problems
from vault.web.requests import PRINCIPAL, VAULT
from vault.web.routes import ROUTES
from vault.web.routes.console import CONSOLE_ROUTES
from vault.web.tls import Network, may_speak_plain, networks

HEADER_BYTES_MAX = 8190
HEADERS_MAX = 64
SHUTDOWN_SECONDS = 20.0
HSTS = "max-age=63072000; includeSubDomains"

SECURITY_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(vault: Vault) -> web.Application:
    """Return the application of this vault."""
    answer_ourselves()
    registry = CollectorRegistry()
    app = web.Application(
        middlewares=[
            _measure(Metrics(registry, vault.meter)),
            problems,
            _only_from(networks(vault.config.trusted_proxies)),
            _authenticate(vault),
        ],
        handler_args={
            "max_line_size": HEADER_BYTES_MAX,
            "max_field_size": HEADER_BYTES_MAX,
            "max_headers": HEADERS_MAX,
            "keepalive_timeout": vault.config.idle_seconds,
            "access_log": None,
        },
    )
    app[VAULT], app[REGISTRY], app[OPENAPI] = vault, registry, openapi()
    app[READINESS] = Readiness(vault, registry)
    app.on_response_prepare.append(_add_headers)
    if vault.config.tls_certificate or vault.config.public_url.startswith("https://"):
        app.on_response_prepare.append(_add_hsts)
    uploads = Uploads(vault.config.uploads_max)
    for route in (*ROUTES, *CONSOLE_ROUTES):
        if route.body == "file":
            app.router.add_route(
                route.method,
                route.path,
                uploads.limit(route.handler),
                expect_handler=_expect(vault.config.document_bytes_max),
            )
        else:
            app.router.add_route(route.method, route.path, route.handler)
    return app


class Uploads:
    """Bounds the uploads in progress; one too many is told to come again."""

    def __init__(self, limit: int) -> None:
        self._free = limit

    def limit(self, handler: Handler) -> Handler:
        """Return the handler under the bound."""

        async def limited(request: web.Request) -> web.StreamResponse:
            if self._free == 0:
                raise UnavailableError("too many uploads are in progress; try again")
            self._free -= 1
            try:
                return await handler(request)
            finally:
                self._free += 1

        return limited


def _expect(size_max: int) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    async def expect(request: web.Request) -> web.StreamResponse | None:
        """Say 413 before the client sends what is declared too large."""
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return problem(417, "only Expect: 100-continue is understood")
        if (request.content_length or 0) > size_max:
            return problem(413, str(too_large(size_max)))
        if request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    return expect


def _authenticate(vault: Vault) -> Middleware:
    authenticator = Authenticator(vault)
    # The console has its own sign-in; what it shows without one is how to sign in.
    public = {route.path for route in ROUTES if route.public}
    public |= {route.path for route in CONSOLE_ROUTES}
    knows = {route.path for route in ROUTES if route.knows}

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "\0" in request.query_string:
            raise NotFoundError("nothing here has a name with a NUL in it")
        resource = request.match_info.route.resource
        path = None if resource is None else resource.canonical
        shown = path in knows and hdrs.AUTHORIZATION in request.headers
        if path not in public or shown:
            principal: Principal = await authenticator.principal(request)
            request[PRINCIPAL] = principal
        return await handler(request)

    return authenticate


def _measure(metrics: Metrics) -> Middleware:
    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        start, status = time.perf_counter(), "cut"
        try:
            response = await handler(request)
            status = str(response.status)
            return response
        finally:
            metrics.requests.labels(request.method, route, status).inc()
            metrics.seconds.labels(route).observe(time.perf_counter() - start)

    return measure


def _only_from(trusted: tuple[Network, ...]) -> Middleware:
    @web.middleware
    async def only_from(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not may_speak_plain(request, trusted):
            raise ForbiddenError("speak TLS, or come by the proxy")
        return await handler(request)

    return only_from


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.popall(hdrs.SERVER, None)
    for name, value in SECURITY_HEADERS.items():
        # A page of the console brings a policy of its own.
        response.headers.setdefault(name, value)


async def _add_hsts(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers["Strict-Transport-Security"] = HSTS
