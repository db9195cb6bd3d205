"""
Accepts connections for every listener of the vault, each into its place of the account.

The library's own servers count nothing, least of all while TLS is being agreed on. Here a
connection has its place from the moment it is accepted until its descriptor is closed; one without
a place is closed at once. Each is shown the certificate that is the current one when it comes.
"""

import asyncio
import errno
import ipaddress
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keys.ground.secret_files import ExposedError, check_owner_only
from vault.config.settings import Config
from vault.errors import ConfigurationError

# ---- One account of every connection that comes in, by whatever listener: in all, and by address.
#
# Each connection holds a descriptor, and whoever answers it needs others (a database session, an
# object, a child). So the account has fewer places than the process has descriptors, and one
# address has fewer than all. When every place is taken, the address that holds most gives up the
# oldest of its connections that wait for a request; so who only sits there keeps nobody out.

log = logging.getLogger(__name__)

#: Descriptors that are not a connection's: the database, the store, children, files, the loop.
DESCRIPTORS_KEPT = 256
#: A connection's own, and the one that its request may open at the store.
DESCRIPTORS_EACH = 2
PLACES_MIN = 16

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Holder(Protocol):
    """Who answers a connection."""

    def is_waiting(self) -> bool:
        """Return whether no request is being answered, so that nothing is lost with it."""

    def cut(self) -> None:
        """End the connection at once."""


class Place:
    """One connection's place in the account; free again when its descriptor is closed."""

    __slots__ = ("address", "holder")

    def __init__(self, address: str | None) -> None:
        #: None: a proxy's, which speaks for many.
        self.address = address
        self.holder: Holder | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections there may be at once, and why no more."""

    places: int
    places_per_address: int
    descriptors: int

    @classmethod
    def of(cls, config: Config, descriptors: int) -> "Room":
        """Return what a limit of so many descriptors is worth."""
        room = (descriptors - DESCRIPTORS_KEPT) // DESCRIPTORS_EACH
        places = max(PLACES_MIN, min(config.connections_max, room))
        # No address alone fills the house.
        return cls(places, min(config.connections_per_address_max, places // 2), descriptors)


class Connections:
    """The account of one process; `refused` and `cut` count for the metrics."""

    def __init__(self, room: Room, proxies: Sequence[Network] = ()) -> None:
        self.room, self._proxies = room, proxies
        self._places: dict[str | None, dict[Place, None]] = {}
        self.open, self.refused, self.cut = 0, 0, 0

    def take(self, peer: str) -> Place | None:
        """Return a place for a connection from this address; None where there is none for it."""
        address = self._counted_as(peer)
        mine = self._places.get(address, {})
        if address is not None and len(mine) >= self.room.places_per_address:
            self.refused += 1
            return None
        if self.open >= self.room.places and not self._make_room():
            self.refused += 1
            return None
        place = Place(address)
        self._places.setdefault(address, mine)[place] = None
        self.open += 1
        return place

    def leave(self, place: Place) -> None:
        """Give a place back; a second time it is nobody's, and nothing happens."""
        mine = self._places.get(place.address, {})
        if place not in mine:
            return
        del mine[place]
        self.open -= 1
        if not mine:
            del self._places[place.address]

    def _make_room(self) -> bool:
        """Cut the oldest waiting connection of the address that holds most, if any waits."""
        for mine in sorted(self._places.values(), key=len, reverse=True):
            for place in mine:
                if place.holder is not None and place.holder.is_waiting():
                    self.cut += 1
                    self.leave(place)
                    place.holder.cut()
                    return True
        return False

    def _counted_as(self, peer: str) -> str | None:
        """Return what counts as one address: an IPv4 address or an IPv6 /64; None for a proxy."""
        address = plain_address(peer)
        if address is None or any(address in network for network in self._proxies):
            return None if address is not None else peer
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        return str(address)


class CountedSocket(socket.socket):
    """An accepted connection whose place is free when its descriptor is."""

    account: Connections | None = None
    place: Place | None = None

    def _leave(self) -> None:
        if self.account is not None and self.place is not None:
            self.account.leave(self.place)

    def close(self) -> None:
        """Close the descriptor."""
        super().close()
        self._leave()

    def detach(self) -> int:
        """Hand the descriptor to a loop that is about to close it."""
        self._leave()
        return super().detach()


def plain_address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a peer's address, an IPv4 one also where the socket speaks IPv6, or None."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def raise_descriptors() -> int:
    """Raise the soft limit of descriptors to the hard one, and return what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


# ---- The certificate that a listener shows, as its files are now. -------------------------------
#
# When a file changes (certificate, key or the authority of clients), a whole new context is made
# of all of them, and connections that come from then on are shown that one: nothing of the one
# before is left in it, neither a key of another algorithm nor an authority that was withdrawn.
# Connections that are open go on as they are. Files that do not fit are refused and said in the
# log, and the context before stays.

CERTIFICATE_LOOK_SECONDS = 2.0


class Certificate:
    """A certificate, its key and the authority of clients; `keep` takes up what changes."""

    def __init__(
        self, certificate: str, key: str = "", client_ca: str = "", *, setting: str, http: bool
    ) -> None:
        """Read the files; `setting` names them in errors. Raises `ConfigurationError`."""
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._setting, self._http = setting, http
        # Looked at first: what changes while it is read is then taken up at the next look.
        self._seen = self._stamp()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context of connections that come now."""
        return self._context

    async def keep(self) -> None:
        """Take up new files whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(CERTIFICATE_LOOK_SECONDS)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == self._seen:
                continue
            try:
                self._context = await asyncio.to_thread(self._load)
            except ConfigurationError as error:
                log.warning("the old certificate stays: %s", error)
                continue
            self._seen = stamp
            log.info("the new certificate is in use")

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._http:
            context.set_alpn_protocols(["http/1.1"])
        try:
            # Where the key is in the certificate's file, that one is the secret.
            secret = Path(self._key or self._certificate)
            check_owner_only(secret, secret.stat())
            context.load_cert_chain(self._certificate, self._key or None, _no_password)
            if self._client_ca:
                # Who has a certificate shows it; whether one is needed is what their token says.
                context.verify_mode = ssl.CERT_OPTIONAL
                context.load_verify_locations(self._client_ca)
        except ExposedError as error:
            raise ConfigurationError(f"{self._setting}: {error}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None)
            raise ConfigurationError(
                f"{self._setting} {self._certificate} and its key cannot be used: "
                f"{reason or 'unusable'}"
            ) from None
        return context

    def _stamp(self) -> tuple[object, ...]:
        """Return what changes with the files; one that is away for a moment is a change, too."""
        stamps: list[object] = []
        for name in (self._certificate, self._key, self._client_ca):
            try:
                found = Path(name).stat() if name else None
            except OSError:
                found = None
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size) if found else None)
        return tuple(stamps)


def _no_password() -> str:
    """Refuse a key under a passphrase, which OpenSSL would ask for on the terminal."""
    raise ValueError("the key has a passphrase")


# ---- Listener. ----------------------------------------------------------------------------------

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
