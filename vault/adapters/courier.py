"""
Carries signals to their endpoints over HTTPS, and nowhere else.

A name is resolved once, every address it has must be public, and the connection goes to one of
those that were checked; no redirect is followed. So a name that points into this network, now or in
the next moment, reaches nothing. The operator may allow it for an endpoint by name.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10.0


class ForbiddenTargetError(OSError):
    """The endpoint is not at a public address."""


_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Within what is handed out: 6to4 and Teredo, which lead on to any IPv4 address, and documentation.
_NO_TARGETS = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
#: The interface part of ISATAP (RFC 5214), with and without the bit for a public address.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def require_public(address: str) -> None:
    """
    Raise `ForbiddenTargetError` unless an address is a public one.

    An IPv6 address that leads on to an IPv4 one by NAT64 or ISATAP is as public as that. Of other
    special addresses none is: only what registries hand out is a target. A network's own prefix for
    NAT64 cannot be told from any other address.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise ForbiddenTargetError(f"{address} is no address") from None
    if isinstance(parsed, ipaddress.IPv6Address):
        good = _is_public_6(parsed)
    else:
        good = _is_public_4(parsed)
    if not good:
        raise ForbiddenTargetError("the endpoint is not at a public address")


def _is_public_4(address: ipaddress.IPv4Address) -> bool:
    return address.is_global and not address.is_multicast


def _is_public_6(address: ipaddress.IPv6Address) -> bool:
    number = int(address)
    low = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address in _NAT64:
        return _is_public_4(low)
    if address not in _UNICAST or any(address in network for network in _NO_TARGETS):
        return False
    is_isatap = (number >> 32) & 0xFFFFFFFF in _ISATAP
    return address.is_global and (not is_isatap or _is_public_4(low))


class HttpCourier:
    """Posts to endpoints; holds no connection between two posts."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool
    ) -> int:
        """Return the status; raises OSError, aiohttp.ClientError or TimeoutError."""
        import aiohttp

        from vault.adapters.public_resolver import PublicResolver

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
