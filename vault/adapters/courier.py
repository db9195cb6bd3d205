"""
Carries signals to their endpoints over HTTPS, and nowhere else.

A name is resolved once, every address it has must be public, and the connection goes to one of
those that were checked; no redirect is followed. So a name that points into this network, now or in
the next moment, reaches nothing. The operator may allow it for an endpoint by name.
"""

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

TIMEOUT_SECONDS = 10.0


class ForbiddenTargetError(OSError):
    """The endpoint is not at a public address."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name, or raise when one of them is not public."""
        found = await self._inner.resolve(host, port, family)
        for item in found:
            require_public(item["host"])
        return found

    async def close(self) -> None:
        """Let go of nothing."""
        await self._inner.close()


def require_public(address: str) -> None:
    """Raise `ForbiddenTargetError` unless an address is a public one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise ForbiddenTargetError(f"{address} is no address") from None
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    for each in filter(None, (parsed, mapped)):
        if not each.is_global or each.is_multicast:
            raise ForbiddenTargetError("the endpoint is not at a public address")


class HttpCourier:
    """Posts to endpoints; holds no connection between two posts."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool
    ) -> int:
        """Return the status; raises OSError, aiohttp.ClientError or TimeoutError."""
        if not allow_private:
            _check_literal(url)
        connector = aiohttp.TCPConnector(
            resolver=None if allow_private else PublicResolver(), force_close=True
        )
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as http,
            http.post(url, data=body, headers=dict(headers), allow_redirects=False) as response,
        ):
            return response.status


def _check_literal(url: str) -> None:
    """Check a host that is an address itself: those are never resolved."""
    host = urlsplit(url).hostname or ""
    if host.replace(".", "").isdigit() or ":" in host:
        require_public(host)
