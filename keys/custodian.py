"""
What holds root keys.

A custodian keeps one root key for each generation of a region, wraps with it, and can destroy it.
Root keys never leave a custodian. The vault calls it only when a tree's root is opened or replaced,
never on the path of a document.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    KeyDestroyedError,
    KeyMissingError,
)


class Custodian(Protocol):
    """Holder of root keys; every method is safe to repeat."""

    @property
    def name(self) -> str:
        """A short public name without secrets, such as `file:/var/lib/keys`."""

    @property
    def destroy_level(self) -> int:
        """0 logical only, 1 hardware but its backups count, 2 attested after a delay, 3 at once."""

    @property
    def destroy_promise(self) -> str:
        """One sentence that says what `destroy` is worth here; certificates repeat it."""

    async def create(self, region: str, generation: int) -> None:
        """Make the root key durably; does nothing when it exists, refuses a destroyed number."""

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Encrypt a 32-byte key under the generation, bound to `context`."""

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """
        Decrypt what `wrap` made.

        Raises `KeyDestroyedError` only where the custodian says that the generation was destroyed,
        whatever the bytes are; `KeyMissingError` when it is not here and nothing says so;
        `IntegrityError` when it is here and the bytes or the context differ;
        `CustodianUnavailableError` when nothing can be said.
        """

    async def destroy(self, region: str, generation: int) -> None:
        """Destroy the root key; returns only when this custodian can no longer use it."""

    async def generations(self, region: str) -> list[int]:
        """The living generations, ascending."""

    async def returned(self, region: str) -> list[int]:
        """Generations that were destroyed and whose key lies here again, ascending: a copy came."""

    async def last_destroyed(self, region: str) -> int:
        """The highest number that was destroyed, 0 for none; none at or below it is made again."""

    async def check(self) -> None:
        """Raise when the custodian is not usable, with a message that says what to do."""

    async def close(self) -> None:
        """Let go of sessions and handles."""


# ---- Two custodians while root keys move from one to the other. ---------------------------------
#
# New generations are made at the current one only; what the previous one holds still opens, and is
# destroyed there. After one seal the previous one holds nothing that is needed.


class MovingCustodian:
    """The current custodian, with the previous one behind it."""

    def __init__(self, current: Custodian, previous: Custodian) -> None:
        self._current, self._previous = current, previous

    def __repr__(self) -> str:
        return f"MovingCustodian({self.name}, {self._previous.name})"

    @property
    def name(self) -> str:
        """Return the current custodian's name."""
        return self._current.name

    @property
    def destroy_level(self) -> int:
        """Return the lower level, since a generation may have lain at either."""
        return min(self._current.destroy_level, self._previous.destroy_level)

    @property
    def destroy_promise(self) -> str:
        """Say both promises, or the one they share."""
        current, previous = self._current.destroy_promise, self._previous.destroy_promise
        if current == previous:
            return current
        return f"At {self._current.name}: {current} At {self._previous.name}: {previous}"

    async def create(self, region: str, generation: int) -> None:
        """Make the key at the current custodian; refuses a number that the previous one knows."""
        if generation in await self._previous.generations(region):
            raise KeyDestroyedError(
                f"generation {generation} of {region} lies at {self._previous.name}; the next seal "
                "takes the next number"
            )
        if generation <= await self._previous.last_destroyed(region):
            raise KeyDestroyedError(f"generation {generation} of {region} was destroyed")
        await self._current.create(region, generation)

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Encrypt where the generation lives."""
        holder = await self._holder(region, generation)
        return await holder.wrap(region, generation, key, context)

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt where the generation lives; it is destroyed only when both say so."""
        holder = await self._holder(region, generation)
        return await holder.unwrap(region, generation, wrapped, context)

    async def destroy(self, region: str, generation: int) -> None:
        """Destroy at both."""
        await self._previous.destroy(region, generation)
        await self._current.destroy(region, generation)

    async def generations(self, region: str) -> list[int]:
        """Return what lives at either."""
        current = await self._current.generations(region)
        return sorted({*current, *await self._previous.generations(region)})

    async def is_moved(self, region: str) -> bool:
        """Whether the previous custodian holds nothing of a region any more, and this one does."""
        if await self._previous.generations(region):
            return False
        return bool(await self._current.generations(region))

    async def returned(self, region: str) -> list[int]:
        """Return what came back to either."""
        current = await self._current.returned(region)
        return sorted({*current, *await self._previous.returned(region)})

    async def last_destroyed(self, region: str) -> int:
        """Return the highest number that either destroyed."""
        current = await self._current.last_destroyed(region)
        return max(current, await self._previous.last_destroyed(region))

    async def _holder(self, region: str, generation: int) -> Custodian:
        """
        Return who holds a generation; the error of one that is gone where neither does.

        It is `KeyDestroyedError` when either destroyed it, `KeyMissingError` otherwise.
        """
        for custodian in (self._current, self._previous):
            if generation in await custodian.generations(region):
                return custodian
        if generation > await self.last_destroyed(region):
            raise KeyMissingError(self.name, region, generation)
        raise KeyDestroyedError

    async def check(self) -> None:
        """Raise when either is not usable."""
        await self._current.check()
        await self._previous.check()

    async def close(self) -> None:
        """Let go of both."""
        try:
            await self._current.close()
        finally:
            await self._previous.close()


# ---- Destroyed root keys that came back to a custodian which the region has left. ---------------

log = logging.getLogger(__name__)


async def destroy_elsewhere(custodians: Mapping[str, Custodian], region: str) -> list[int]:
    """
    Destroy the region's root keys that came back to other regions' custodians; returns which.

    Only what such a custodian itself says was destroyed is touched, and only there. One that cannot
    be used is passed over: that is its own region's finding.
    """
    own = custodians[region].name
    others = {custodian.name: custodian for custodian in custodians.values()}
    found = set[int]()
    for name, custodian in others.items():
        if name == own:
            continue
        with suppress(CustodianConfigurationError, CustodianUnavailableError):
            for generation in await custodian.returned(region):
                log.critical(
                    "the destroyed root key of generation %d of %s came back to %s, where the "
                    "region was before; it is destroyed again: find the copy that it came from",
                    generation,
                    region,
                    name,
                )
                found.add(generation)
                await custodian.destroy(region, generation)
    return sorted(found)
