"""
A client of one HTTP/1.1 server that costs little for each request.

aiohttp's client does more, and for a PUT of the size of a fax it takes three times the processor
time, which is a quarter of all that a fax costs. Connections are kept and shared; there are no
redirects, cookies, proxies or content codings.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterable, Mapping
from typing import cast
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# ---- One connection over which requests of HTTP/1.1 go out and answers come in, one at a time.
#
# What a server says is parsed by httptools, that is, llhttp. Whatever goes wrong is an `OSError`.

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


# ---- Http client. -------------------------------------------------------------------------------

#: Shorter than any server waits, so that a connection it has closed is seldom used again.
KEEPALIVE_SECONDS = 10.0
#: An address that does not answer is waited for alone no longer than that (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25
#: Transports end in later turns of the loop: one whose upload was cut has bytes to send.
CLOSE_SECONDS = 0.05


class HttpClient:
    """Requests to one server; it may be silent for so many seconds, to connect or to answer."""

    def __init__(self, host: str, *, secure: bool, timeout_seconds: float) -> None:
        place = urlsplit(f"//{host}")
        self._host, self._port = place.hostname or "", place.port or (443 if secure else 80)
        self._tls = ssl.create_default_context() if secure else None
        self._seconds = timeout_seconds
        self._closed = False
        #: In the order in which they were given back.
        self._idle: deque[Wire] = deque()
        self._wires: set[Wire] = set()

    async def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = b"",
        *,
        again: bool = True,
    ) -> "Exchange":
        """
        Send a request; where its body is None, `Exchange.send_body` has to follow.

        With `again` it is sent once more where a kept connection turns out to be closed: that is
        for what does no more when it comes twice.
        """
        lines = [f"{method} {target} HTTP/1.1", *map(": ".join, headers.items())]
        if not all(map(str.isprintable, lines)):
            raise ValueError("a header of a request must be one line of text")
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        exchange = Exchange(self, head, body)
        wire = self.kept()
        exchange.begin(wire or await self.connect(), again=again and wire is not None)
        return exchange

    def kept(self) -> Wire | None:
        """Return a connection that was kept, where there is one."""
        self._drop_old()
        while self._idle:
            wire = self._idle.pop()
            if wire.is_reusable():
                return wire
            self._drop(wire)
        return None

    async def connect(self) -> Wire:
        """Return a new connection, to whichever of the server's addresses answers first."""
        async with asyncio.timeout(self._seconds):
            sock = await self._reach()
            try:
                _, wire = await asyncio.get_running_loop().create_connection(
                    lambda: Wire(self._seconds),
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
            except BaseException:
                sock.close()
                raise
        self._wires.add(wire)
        if self._closed:
            self._drop(wire)
        return wire

    def give_back(self, wire: Wire) -> None:
        """Keep a connection for the next request, where it may be."""
        self._drop_old()
        if wire.is_reusable() and not self._closed:
            wire.idle_since = time.monotonic()
            self._idle.append(wire)
        else:
            self._drop(wire)

    async def close(self) -> None:
        """Let go of the connections, for good."""
        self._closed = True
        self._idle.clear()
        for wire in list(self._wires):
            self._drop(wire)
        await asyncio.sleep(CLOSE_SECONDS)

    async def _reach(self) -> socket.socket:
        if self._closed:
            raise ConnectionAbortedError("the client is closed")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise OSError("its name is none") from None
        return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, loop=loop)

    def _drop_old(self) -> None:
        oldest = time.monotonic() - KEEPALIVE_SECONDS
        while self._idle and self._idle[0].idle_since < oldest:
            self._drop(self._idle.popleft())

    def _drop(self, wire: Wire) -> None:
        self._wires.discard(wire)
        wire.close()


class Exchange:
    """A request on its way, and its answer; a wait that was cancelled may be begun again."""

    def __init__(self, client: HttpClient, head: bytes, body: bytes | None) -> None:
        self._client, self._head, self._body = client, head, body
        self._wire: Wire | None = None
        self._again = False

    @property
    def status(self) -> int:
        """The answer's status."""
        return self._on.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, their names in lower case."""
        return self._on.headers

    def begin(self, wire: Wire, *, again: bool) -> None:
        """Send what is known of the request; `again` says whether it may be sent twice."""
        self._wire, self._again = wire, again and self._body is not None
        wire.begin(sending=self._body is None)
        wire.write(self._head, self._body or b"")

    async def send_body(self, pieces: AsyncIterable[bytes]) -> None:
        """Send the rest; where that fails, or is cancelled, the connection ends."""
        wire = self._on
        try:
            async for piece in pieces:
                wire.write(piece)
                await wire.drained()
            wire.sent()
        finally:
            if wire.sending:
                wire.close("the body was cut")

    async def answer(self) -> None:
        """Wait for status and headers."""
        while not self._on.headed:
            try:
                await self._on.heard_more()
            except ConnectionError:
                if self._on.heard or not self._again:
                    raise
                fresh = await self._client.connect()
                self.end()
                self.begin(fresh, again=False)

    async def next_piece(self) -> bytes:
        """Return the next bytes of the body, none at its end; raises when that is early."""
        return await self._on.next_piece()

    async def whole(self, size_max: int) -> bytes:
        """Return the answer's body; no more is waited for than the limit."""
        pieces, size = list[bytes](), 0
        while size < size_max and (piece := await self._on.next_piece()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def end(self) -> None:
        """Give the connection back; what is left of the answer is not wanted."""
        if self._wire is not None:
            self._client.give_back(self._wire)
            self._wire = None

    @property
    def _on(self) -> Wire:
        if self._wire is None:
            raise ConnectionAbortedError("the exchange has ended")
        return self._wire
