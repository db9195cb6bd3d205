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
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from vault.adapters.http_wire import Wire

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
