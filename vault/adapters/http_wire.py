"""
One connection over which requests of HTTP/1.1 go out and answers come in, one at a time.

What a server says is parsed by httptools, that is, llhttp. Whatever goes wrong is an `OSError`.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

#: How much of an answer waits for its reader before the server is held up.
BUFFER_BYTES = 512 * 1024
#: How much of an answer may come before its body does.
HEAD_BYTES_MAX = 64 * 1024


class Wire(asyncio.Protocol):
    """A connection; `begin` clears it for the next request, `failure` says why there is none."""

    def __init__(self, silence_seconds_max: float) -> None:
        self._silence_seconds_max = silence_seconds_max
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self.failure: OSError | None = None
        self.idle_since = 0.0
        self.begin(sending=False)

    def begin(self, *, sending: bool) -> None:
        """Forget the last answer; while a body is `sending` the server need not say anything."""
        self.sending = sending
        self.status = 0
        self.headers: dict[str, str] = {}
        self._pieces: deque[bytes] = deque()
        self._size_bytes = self._head_bytes = 0
        #: How far the answer has come: anything of it, all before its body, all of it.
        self.heard = self.headed = self.ended = False

    def write(self, *parts: bytes) -> None:
        """Send at once what the system takes; the rest follows."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(parts)

    def sent(self) -> None:
        """Note that the body is sent: from now on the server has to say something."""
        self.sending = False
        self._wake()

    async def drained(self) -> None:
        """Wait until the system takes more; raises what ended the connection."""
        await self._writable.wait()
        if self.failure is not None:
            raise self.failure

    async def heard_more(self) -> None:
        """Wait for anything of the answer; raises when the server is silent for too long."""
        if self.failure is not None:
            raise self.failure
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(self._silence_seconds_max, self._silent)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    async def next_piece(self) -> bytes:
        """Return the next bytes of the body; nothing at its end."""
        while not self._pieces:
            if self.ended:
                return b""
            await self.heard_more()
        piece = self._pieces.popleft()
        self._size_bytes -= len(piece)
        if not self._reading and self._size_bytes < BUFFER_BYTES and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return piece

    def is_reusable(self) -> bool:
        """Whether the next request may go this way."""
        return (
            self.ended
            and not self._pieces
            and self._reading
            and not self.sending
            and self.failure is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def close(self, reason: str = "closed") -> None:
        """End the connection at once."""
        self._fail(ConnectionAbortedError(reason))

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self.ended:
            self.close("the server spoke without being asked")
            return
        self.heard = True
        if not self.headed:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.close("the server changed the protocol")
            return
        except HttpParserError:
            self.close("the server does not speak HTTP")
            return
        if not self.headed and self._head_bytes > HEAD_BYTES_MAX:
            self.close("the server says too much before its answer")
            return
        if self._reading and self._size_bytes >= BUFFER_BYTES and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        """Hold back who writes."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let them write."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: well where the answer was to go on until now, and else too early."""
        if exc is None and self.failure is None and self.headed and not _has_length(self.headers):
            self.ended = True
        cut = ConnectionResetError("the connection was cut")
        self._fail(exc if isinstance(exc, OSError) else cut)
        self._transport = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self.ended:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a line of the answer's head; what is said behind its body is left."""
        if not self.headed:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status, unless the answer proper is still to come (RFC 9110, 15.2)."""
        self.status = self._parser.get_status_code()
        self.headed = self.status >= 200
        if not self.headed:
            self.headers = {}

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body until it is read."""
        self._pieces.append(body)
        self._size_bytes += len(body)

    def on_message_complete(self) -> None:
        """Note the end, and whether the server goes on listening."""
        self.ended = self.headed
        if self.ended and not self._parser.should_keep_alive():
            self.close("the server wants no more")

    def _silent(self) -> None:
        if self.sending:
            self._wake()
            return
        self._fail(TimeoutError(f"no word for {self._silence_seconds_max:g} seconds"))

    def _fail(self, reason: OSError) -> None:
        if self.failure is None:
            self.failure = reason
        if self._transport is not None:
            self._transport.abort()
        self._writable.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _has_length(headers: Mapping[str, str]) -> bool:
    """Whether an answer says itself where it ends; else the connection's end is its own."""
    return "content-length" in headers or "transfer-encoding" in headers
