"""
Listens: the server on its address, with TLS where a certificate is configured.

At its end nothing that came in is left without an answer: what is asked is answered, uploads may
end within `shutdown_seconds`, and those that have not by then are refused with 503.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.web import BaseRequest, RequestHandler, Response, Server, StreamResponse

from vault.config.settings import Config
from vault.context import Vault
from vault.errors import ConfigurationError
from vault.process.listener import Connections, Listener, Place, Room, listener, raise_descriptors
from vault.web.auth import networks, tls_certificate
from vault.web.problems import BAD_REQUEST, INTERNAL, problem
from vault.web.requests import STOPPING, Stopping
from vault.web.server import make_app

# ---- One HTTP connection: bounded in each of its phases, and answered by us also where it is no
# HTTP.
#
# The head of a request has `header_seconds`, from the connection on or from its first byte;
# between two requests a connection may rest for `idle_seconds`, and an answer that is not taken
# within as much ends it. What a body may take is `vault.web.requests` to say. Bodies are handed on
# as they came: nothing of what a stranger sends is inflated.

log = logging.getLogger(__name__)

HEADER_BYTES_MAX = 8190
HEADERS_MAX = 64
#: After an answer that did not wait for its request's body, so long of it is read and let go.
LINGER_SECONDS = 5.0


class _Unsigned(Response):
    """A response without the banner, which the library adds where no application takes it off."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)


class Connection(RequestHandler):
    """The library's protocol in a place of the account, with limits of time."""

    __slots__ = ("_answer_seconds", "_head_seconds", "_head_timer", "_place")

    def __init__(self, server: Server, config: Config, place: Place) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=config.idle_seconds,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type] # the library's own word for none
        )
        self._head_seconds, self._answer_seconds = config.header_seconds, config.idle_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._place = place

    def is_waiting(self) -> bool:
        """Whether no request is being answered: the library waits for the next head."""
        return self._waiter is not None and not self._waiter.done()

    def cut(self) -> None:
        """End the connection at once."""
        self._stop_timer()
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head; until now the listener had the place."""
        self._place.holder = self
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait no more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that has begun has to be whole in time."""
        super().data_received(data)
        # The first bytes may come before the library begins to wait for them.
        if self._messages:
            self._stop_timer()
        elif data and self.is_waiting() and self._head_timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self.cut)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        """Send what is left of an answer; who does not take it in time is cut off."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.cut()
            raise ConnectionResetError("the reader took nothing") from None

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Answer what the library cannot parse, or failed at, with a problem like all others."""
        del message
        level = logging.ERROR if status == 500 else logging.INFO
        log.log(level, "answered %d: %s", status, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        plain: Any = (
            problem(INTERNAL, "something went wrong on our side")
            if status == 500
            else problem(BAD_REQUEST, "this is not HTTP/1.1")
        )
        response = _Unsigned(status=plain.status, headers=plain.headers, body=plain.body)
        response.force_close()
        return response


# ---- Listening. ---------------------------------------------------------------------------------

#: What an answer may take once its body was refused, before the connection is cut.
LAST_SECONDS = 5.0
LOOK_SECONDS = 0.05


def open_account(config: Config) -> Connections:
    """Return the account of this process's connections, with every descriptor it may have."""
    return Connections(Room.of(config, raise_descriptors()), networks(config.trusted_proxies))


@asynccontextmanager
async def serving(
    config: Config, vault: Vault, connections: Connections | None = None
) -> AsyncIterator[str]:
    """Serve within the block, and give the address."""
    account = connections or open_account(config)
    certificate = tls_certificate(config)
    runner = web.AppRunner(make_app(vault, account), shutdown_timeout=LAST_SECONDS)
    await runner.setup()

    # It is there from `setup` to `cleanup`.
    server = cast(web.Server, runner.server)

    def answer(place: Place) -> Connection:
        return Connection(server, config, place)

    made = Listener(
        account,
        answer,
        context=certificate.context if certificate else lambda: None,
        handshake_seconds=config.tls_handshake_seconds,
    )
    keeping = asyncio.create_task(certificate.keep()) if certificate else None
    try:
        async with listener(made):
            try:
                port = await made.listen(config.host, config.port)
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on {config.host}:{config.port}: {error.strerror}; "
                    "set PORTVAULT_PORT to a free port"
                ) from error
            host = f"[{config.host}]" if ":" in config.host else config.host
            yield f"{'https' if certificate else 'http'}://{host}:{port}"
    finally:
        if keeping is not None:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
        await _let_end(runner.app[STOPPING], server, config.shutdown_seconds)
        await runner.cleanup()


async def _let_end(stopping: Stopping, server: web.Server, seconds: float) -> None:
    """Wait until every request has its answer; uploads that take longer than that get one, too."""
    stopping.begun = True
    refuse_at = time.monotonic() + seconds
    while _busy(server):
        now = time.monotonic()
        if now >= refuse_at:
            stopping.refuse()
        if now >= refuse_at + LINGER_SECONDS + LAST_SECONDS:
            break
        await asyncio.sleep(LOOK_SECONDS)


def _busy(server: web.Server) -> int:
    """Return how many connections are being answered; those that only wait are closed."""
    busy = 0
    for connection in server.connections:
        if isinstance(connection, Connection) and not connection.is_waiting():
            busy += 1
        else:
            connection.force_close()
    return busy
