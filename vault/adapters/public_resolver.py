"""Resolves names for the courier; apart from it, so that only who sends loads an HTTP client."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from vault.adapters.courier import require_public


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
