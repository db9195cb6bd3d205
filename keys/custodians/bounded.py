"""A custodian that answers within a time, or says that it is unavailable."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from keys.custodian import Custodian
from keys.errors import CustodianUnavailableError

T = TypeVar("T")


class BoundedCustodian:
    """Another custodian with a limit in `seconds` on every call."""

    def __init__(self, custodian: Custodian, seconds: float) -> None:
        self._custodian, self._seconds = custodian, seconds

    def __repr__(self) -> str:
        return f"BoundedCustodian({self.name})"

    @property
    def name(self) -> str:
        """Return the custodian's name."""
        return self._custodian.name

    @property
    def destroy_level(self) -> int:
        """Return the custodian's level."""
        return self._custodian.destroy_level

    @property
    def destroy_promise(self) -> str:
        """Return the custodian's promise."""
        return self._custodian.destroy_promise

    async def create(self, region: str, generation: int) -> None:
        """Make the root key."""
        await self._within(self._custodian.create(region, generation))

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Encrypt a key under the generation."""
        return await self._within(self._custodian.wrap(region, generation, key, context))

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt what `wrap` made."""
        return await self._within(self._custodian.unwrap(region, generation, wrapped, context))

    async def destroy(self, region: str, generation: int) -> None:
        """Destroy the root key."""
        await self._within(self._custodian.destroy(region, generation))

    async def generations(self, region: str) -> list[int]:
        """Return the living generations."""
        return await self._within(self._custodian.generations(region))

    async def check(self) -> None:
        """Raise when the custodian is not usable."""
        await self._within(self._custodian.check())

    async def close(self) -> None:
        """Let go of the custodian."""
        await self._custodian.close()

    async def _within(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except TimeoutError:
            raise CustodianUnavailableError(
                f"{self.name} did not answer within {self._seconds:g} seconds; is it reachable?"
            ) from None
