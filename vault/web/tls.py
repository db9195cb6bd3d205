"""Who may speak plain HTTP, and the certificate of those who may not."""

import ipaddress
from collections.abc import Sequence

from aiohttp import web

from vault.config.settings import Config
from vault.errors import ConfigurationError
from vault.process.listener import Certificate, Network, plain_address

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def tls_certificate(config: Config) -> Certificate | None:
    """Return the certificate; None where a proxy, or nobody but this machine, is spoken to."""
    if not config.tls_certificate:
        if config.host not in LOOPBACK and not config.trusted_proxies:
            raise ConfigurationError(
                f"the vault does not speak plain HTTP on {config.host}: set tls_certificate and "
                "tls_key, or name the proxies in front of it in trusted_proxies"
            )
        return None
    return Certificate(
        config.tls_certificate,
        config.tls_key,
        config.tls_client_ca,
        setting="tls_certificate",
        http=True,
    )


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return addresses and networks; raises `ConfigurationError`."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigurationError(f"trusted_proxies: {error}") from None


def may_speak_plain(request: web.Request, trusted: Sequence[Network]) -> bool:
    """
    Whether a connection that is not TLS comes from a proxy that is trusted.

    It is the connection's own address that counts. What a client writes about itself, in
    X-Forwarded-For or elsewhere, is read nowhere in the vault.
    """
    if not trusted or request.get_extra_info("ssl_object") is not None:
        return True
    address = _peer(request)
    return address is not None and any(address in network for network in trusted)


def client_network(request: web.Request, trusted: Sequence[Network]) -> str | None:
    """
    Return the address that a request comes from, of IPv6 its /64, which one host has whole.

    None where that is a proxy: who is behind it is not known.
    """
    address = _peer(request)
    if address is None or (trusted and request.get_extra_info("ssl_object") is None):
        return None
    bits = 64 if address.version == 6 else 32
    return str(ipaddress.ip_network((address, bits), strict=False))


def _peer(request: web.Request) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the other end's address; IPv4 as such, however the socket writes it."""
    peer = request.get_extra_info("peername")
    return plain_address(peer[0]) if peer else None
