"""
What the keys are for, which the tree itself does not know: whoever uses the keyring tells it.

A data key that left the tree without a shred is a row that was lost. The mirror may still hold it,
wrapped under what stands above it now: whoever replaces what stands above it asks here first.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from keys.rows import Connection


class Living(Protocol):
    """Knows what was not shredded; reads within the caller's transaction."""

    async def unkeyed(
        self, conn: Connection, region: str, scopes: Sequence[UUID] | None
    ) -> list[UUID]:
        """Return what was not shredded and has no data key: of these scopes, or of all (None)."""

    async def scopes_of(self, conn: Connection, region: str, things: Sequence[UUID]) -> list[UUID]:
        """Return every scope that a data key of these things may have hung on."""
