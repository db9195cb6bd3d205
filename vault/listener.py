"""
Accepts connections for every listener of the vault, each into its place of the account.

The library's own servers count nothing, least of all while TLS is being agreed on. Here a
connection has its place from the moment it is accepted until its descriptor is closed; one without
a place is closed at once. Each is shown the certificate that is the current one when it comes.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from vault.connections import Connections, CountedSocket, Place

log = logging.getLogger(__name__)

BACKLOG = 1024
#: So many are accepted before what came in earlier has its turn again.
ACCEPTED_AT_ONCE = 64
#: Where there are no descriptors left, accepting rests for so long.
REST_SECONDS = 0.2
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Factory = Callable[[Place], asyncio.BaseProtocol]


class _Handshake:
    """A connection whose TLS is being agreed on; or, without TLS, is about to be taken over."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    def is_waiting(self) -> bool:
        """Nothing was asked yet."""
        return True

    def cut(self) -> None:
        """Give it up."""
        self._task.cancel()


class Listener:
    """Accepts at one address; `factory` makes the protocol that answers in a place."""

    def __init__(
        self,
        connections: Connections,
        factory: Factory,
        *,
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
        handshake_seconds: float = 10.0,
    ) -> None:
        self._connections, self._factory = connections, factory
        self._context, self._handshake_seconds = context, handshake_seconds
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def listen(self, host: str, port: int) -> int:
        """Listen at every address of the host, and return the port; raises `OSError`."""
        found = await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            self._sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(BACKLOG)
            made.setblocking(False)
            if not port:
                # Several addresses of one name are then at one port only by chance: take the first.
                break
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    def stop(self) -> None:
        """Accept nothing more; connections that are open go on."""
        self._closed = True
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    async def close(self) -> None:
        """Stop, and give up what is being agreed on."""
        self.stop()
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("no descriptor is left for a connection: %s", error.strerror)
                self._loop.remove_reader(listening)
                self._loop.call_later(REST_SECONDS, self._accept_again, listening)
                return
            place = self._connections.take(peer[0])
            if place is None:
                accepted.close()
                continue
            counted = CountedSocket(fileno=accepted.detach())
            counted.account, counted.place = self._connections, place
            counted.setblocking(False)
            task = self._loop.create_task(self._start(counted, place))
            place.holder = _Handshake(task)
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listening, self._accept, listening)

    async def _start(self, counted: CountedSocket, place: Place) -> None:
        context = self._context()
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._factory(place),
                counted,
                ssl=context,
                ssl_handshake_timeout=self._handshake_seconds if context else None,
            )
        except (OSError, TimeoutError) as error:
            # Who does not speak TLS, or too slowly, or is gone: nobody to answer.
            log.debug("a connection did not begin: %s", type(error).__name__)
            counted.close()
        except asyncio.CancelledError:
            counted.close()
            raise


@asynccontextmanager
async def listener(made: Listener) -> AsyncIterator[Listener]:
    """Close a listener at the end of the block."""
    try:
        yield made
    finally:
        with suppress(OSError):
            await made.close()
