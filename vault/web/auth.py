"""
Authentication: from a bearer token to a principal.

A found token is remembered for less than a second, so that a revocation works within a second
everywhere. A token that is bound to a client certificate is taken with that certificate only.
"""

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Sequence

from aiohttp import web

from keys.ground.cache import Lookups
from vault.actions.credentials import TOKEN_PREFIX, authenticate, hash_secret
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.credentials import Known
from vault.errors import ConfigurationError, UnauthenticatedError
from vault.process.listener import Certificate, Network, plain_address

# ---- Who may speak plain HTTP, and the certificate of those who may not. ------------------------

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


# ---- Auth. --------------------------------------------------------------------------------------

REMEMBER_SECONDS = 0.8
REMEMBER_MAX = 1024
TOKEN_LENGTH_MAX = 128


class Authenticator:
    """Finds the principal of a request; holds hashes only."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: OrderedDict[bytes, tuple[float, Known]] = OrderedDict()
        self._lookups = Lookups[bytes, Known | None]()

    async def principal(self, request: web.Request) -> Principal:
        """Return who asks; raises `UnauthenticatedError` with what to do."""
        if TOKEN_PREFIX in request.query_string:
            # It stands in the logs of every proxy on the way now.
            raise UnauthenticatedError(
                "a token never goes into an address; revoke this one, make another, and send "
                "Authorization: Bearer pv_…"
            )
        found = request.headers.getall("Authorization", [])
        scheme, _, secret = (found[0] if len(found) == 1 else "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise UnauthenticatedError("send Authorization: Bearer pv_…")
        whole = secret.startswith(TOKEN_PREFIX) and len(secret) <= TOKEN_LENGTH_MAX
        known = await self._find(secret) if whole else None
        if known is None or not _certified(request, known.certificate):
            raise UnauthenticatedError("this token is unknown, expired or revoked")
        return known.principal

    async def _find(self, secret: str) -> Known | None:
        key, now = hash_secret(secret), time.monotonic()
        if (kept := self._known.get(key)) and kept[0] > now:
            return kept[1]
        return await self._lookups.share(key, lambda: self._look_up(key, secret, now))

    async def _look_up(self, key: bytes, secret: str, now: float) -> Known | None:
        self._known.pop(key, None)
        known = await authenticate(self._vault, secret)
        if known is not None:
            # Counted from before the look: what was revoked during it is forgotten in time, too.
            self._known[key] = (now + REMEMBER_SECONDS, known)
            if len(self._known) > REMEMBER_MAX:
                self._known.popitem(last=False)
        return known


def _certified(request: web.Request, certificate: bytes | None) -> bool:
    """Whether the connection shows the certificate that the token is bound to, if it is to one."""
    if certificate is None:
        return True
    tls = request.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True) if tls is not None else None
    return shown is not None and hmac.compare_digest(hashlib.sha256(shown).digest(), certificate)
