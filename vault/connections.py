"""
One account of every connection that comes in, by whatever listener: in all, and by address.

Each connection holds a descriptor, and whoever answers it needs others (a database session, an
object, a child). So the account has fewer places than the process has descriptors, and one address
has fewer than all. When every place is taken, the address that holds most gives up the oldest of
its connections that wait for a request; so who only sits there keeps nobody out.
"""

import ipaddress
import logging
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from vault.config import Config

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
