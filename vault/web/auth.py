"""
Authentication: from a bearer token to a principal.

A found token is remembered for a second, so that a revocation works within a second everywhere.
"""

import time
from collections import OrderedDict

from aiohttp import web

from vault.actions.tokens import PREFIX, authenticate, hash_secret
from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import UnauthenticatedError

REMEMBER_SECONDS = 1.0
REMEMBER_MAX = 1024
TOKEN_LENGTH_MAX = 128


class Authenticator:
    """Finds the principal of a request; holds hashes only."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def principal(self, request: web.Request) -> Principal:
        """Return who asks; raises `UnauthenticatedError` with what to do."""
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith(PREFIX):
            raise UnauthenticatedError("send Authorization: Bearer pv_…")
        if len(secret) > TOKEN_LENGTH_MAX:
            raise UnauthenticatedError
        key, now = hash_secret(secret), time.monotonic()
        if (known := self._known.get(key)) and known[0] > now:
            return known[1]
        self._known.pop(key, None)
        principal = await authenticate(self._vault, secret)
        if principal is None:
            raise UnauthenticatedError("this token is unknown, expired or revoked")
        self._known[key] = (now + REMEMBER_SECONDS, principal)
        if len(self._known) > REMEMBER_MAX:
            self._known.popitem(last=False)
        return principal
