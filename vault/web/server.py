"""
The HTTP server: middlewares around the table of routes.

From outside in: headers and metrics, errors to problems, authentication, the handler.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry

from vault.actions.ingest import too_large
from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import ForbiddenError, NotFoundError, UnavailableError, UnsupportedTypeError
from vault.process.listener import Connections, Network
from vault.process.meter import ADDRESS
from vault.web.auth import Authenticator, client_network, may_speak_plain, networks
from vault.web.console.handlers import CONSOLE_ROUTES
from vault.web.health import (
    EXPIRY,
    HOOKS,
    OPENAPI,
    QUEUES,
    READINESS,
    REGISTRY,
    UNSIGNED,
    Expiry,
    Metrics,
    Queues,
    Readiness,
)
from vault.web.problems import EXPECTATION, TOO_LARGE, UNSUPPORTED, Handler, problem, problems
from vault.web.requests import PRINCIPAL, STOPPING, VAULT, Stopping
from vault.web.routes import ROUTES, openapi

#: The largest body that is no file: a carrier's webhook.
BODY_BYTES_MAX = 256 * 1024
HSTS = "max-age=63072000; includeSubDomains"

SECURITY_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(vault: Vault, connections: Connections | None = None) -> web.Application:
    """Return the application of this vault; the metrics show the account of connections."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, vault, connections)
    app = web.Application(
        middlewares=[
            _measure(metrics),
            problems,
            _plain_bodies,
            _only_from(networks(vault.config.trusted_proxies)),
            _authenticate(vault),
        ],
    )
    app[VAULT], app[REGISTRY], app[OPENAPI] = vault, registry, openapi()
    app[READINESS] = Readiness(vault, registry)
    app[EXPIRY] = Expiry(vault, registry)
    app[QUEUES] = Queues(vault, registry)
    app[STOPPING] = Stopping()
    app[HOOKS], app[UNSIGNED] = metrics.hooks, {}
    app.on_response_prepare.append(_add_headers)
    if vault.config.tls_certificate or vault.config.public_url.startswith("https://"):
        app.on_response_prepare.append(_add_hsts)
    uploads = Uploads(vault.config.uploads_max)
    for route in (*ROUTES, *CONSOLE_ROUTES):
        is_file = route.body == "file"
        size_max = vault.config.document_bytes_max if is_file else BODY_BYTES_MAX
        app.router.add_route(
            route.method,
            route.path,
            uploads.limit(route.handler) if is_file else route.handler,
            expect_handler=_expect(size_max),
        )
    return app


class Uploads:
    """
    Bounds the uploads in progress, with a fair share for everybody; one too many comes again.

    Nobody gets another place while they hold as many as are free. So one principal alone has half
    of them, two have a third each, and so on; and there is a place for whoever has none.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._held = Counter[str]()

    def limit(self, handler: Handler) -> Handler:
        """Return the handler under the bound."""

        async def limited(request: web.Request) -> web.StreamResponse:
            who = request[PRINCIPAL].id
            if self._held[who] >= self._free:
                raise UnavailableError("too many uploads are in progress; try again")
            self._free -= 1
            self._held[who] += 1
            try:
                return await handler(request)
            finally:
                self._free += 1
                self._held[who] -= 1
                if not self._held[who]:
                    del self._held[who]

        return limited


def _check_plain(request: web.Request) -> None:
    """Raise unless the body comes as it is: nothing is inflated, for a stranger least of all."""
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    transfer = request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").strip().lower()
    if coding not in {"", "identity"} or transfer != "chunked":
        raise UnsupportedTypeError(
            "send the body as it is: Content-Encoding and Transfer-Encoding other than identity "
            "and chunked are not taken"
        )


@web.middleware
async def _plain_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    _check_plain(request)
    return await handler(request)


def _expect(size_max: int) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    async def expect(request: web.Request) -> web.StreamResponse | None:
        """Say what is refused whatever is sent, before the client sends it."""
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return problem(EXPECTATION, "only Expect: 100-continue is understood")
        try:
            _check_plain(request)
        except UnsupportedTypeError as error:
            return problem(UNSUPPORTED, str(error))
        if (request.content_length or 0) > size_max:
            return problem(TOO_LARGE, str(too_large(size_max)))
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
        ADDRESS.set(client_network(request, trusted))
        return await handler(request)

    return only_from


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if request.app[STOPPING].begun:
        response.force_close()
    response.headers.popall(hdrs.SERVER, None)
    for name, value in SECURITY_HEADERS.items():
        # A page of the console brings a policy of its own.
        response.headers.setdefault(name, value)


async def _add_hsts(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers["Strict-Transport-Security"] = HSTS
