"""
TLS, and who may speak plain HTTP.

A new certificate is taken up while connections that are open go on under the old one. A pair that
does not fit is refused and said in the log, and the old one stays.
"""

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from vault.config import Config
from vault.errors import ConfigurationError

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return the server's context; None where a proxy, or nobody but this machine, is spoken to."""
    if not config.tls_certificate:
        if config.host not in LOOPBACK and not config.trusted_proxies:
            raise ConfigurationError(
                f"the vault does not speak plain HTTP on {config.host}: set tls_certificate and "
                "tls_key, or name the proxies in front of it in trusted_proxies"
            )
        return None
    return _load(config)


def _load(config: Config) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key or None, _no_password)
        if config.tls_client_ca:
            # Who has a certificate shows it; whether one is needed is what their token says.
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(config.tls_client_ca)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or "unusable"
        raise ConfigurationError(
            f"the certificate {config.tls_certificate} and its key cannot be used: {reason}"
        ) from None
    return context


def _no_password() -> str:
    """Refuse a key under a passphrase, which OpenSSL would ask for on the terminal."""
    raise ValueError("the key has a passphrase")


async def renew_certificate(context: ssl.SSLContext, config: Config) -> None:
    """Take up a new certificate whenever its files change, until cancelled."""
    seen = _stamp(config)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := _stamp(config)) == seen:
            continue
        try:
            # On a context of its own first: a pair that does not fit must not harm the living one.
            _load(config)
            context.load_cert_chain(config.tls_certificate, config.tls_key or None, _no_password)
        except (ConfigurationError, OSError, ValueError) as error:
            log.warning("the old certificate stays: %s", error)
            continue
        seen = now
        log.info("the new certificate is in use")


def _stamp(config: Config) -> tuple[object, ...]:
    """Return what changes with the files; a file that is away for a moment is a change, too."""
    stamps: list[object] = []
    for name in (config.tls_certificate, config.tls_key):
        try:
            found = Path(name).stat() if name else None
        except OSError:
            found = None
        stamps.append((found.st_mtime_ns, found.st_ino, found.st_size) if found else None)
    return tuple(stamps)


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
    peer = request.get_extra_info("peername")
    address = ipaddress.ip_address(peer[0].partition("%")[0]) if peer else None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address is not None and any(address in network for network in trusted)
