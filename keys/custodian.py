"""
What holds root keys.

A custodian keeps one root key for each generation of a region, wraps with it, and can destroy it.
Root keys never leave a custodian. The vault calls it only when a tree's root is opened or sealed,
never on the path of a document.
"""

from typing import Protocol


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
