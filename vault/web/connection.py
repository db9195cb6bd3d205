"""
One HTTP connection: bounded in each of its phases, and answered by us also where it is no HTTP.

The head of a request has `header_seconds`, from the connection on or from its first byte; between
two requests a connection may rest for `idle_seconds`, and an answer that is not taken within as
much ends it. What a body may take is `vault.web.requests` to say. Bodies are handed on as they
came: nothing of what a stranger sends is inflated.
"""

import asyncio
import logging
from typing import Any

from aiohttp import hdrs
from aiohttp.web import BaseRequest, RequestHandler, Response, Server, StreamResponse

from vault.config.settings import Config
from vault.process.listener import Place
from vault.web.problems import BAD_REQUEST, INTERNAL, problem

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
