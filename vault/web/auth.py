"""
Authentication: from a bearer token to a principal.

A found token is remembered for less than a second, so that a revocation works within a second
everywhere. A token that is bound to a client certificate is taken with that certificate only.
"""

import hashlib
import hmac
import time
from collections import OrderedDict

from aiohttp import web

from keys.ground.cache import Lookups
from vault.actions.credentials import TOKEN_PREFIX, authenticate, hash_secret
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.credentials import Known
from vault.errors import UnauthenticatedError

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
