"""
Purge: remove every version of the objects of what was shredded, which nothing opens any more.

An object that cannot be removed holds up no other. The rest of its batch goes; and where of the
oldest none can be removed, the newest are tried, too.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol
from uuid import UUID

from vault.actions.bucket import purge_many
from vault.context import Vault
from vault.domain.documents import object_name
from vault.errors import VaultError
from vault.sql import documents as documents_sql
from vault.sql import fax_intake as fax_intake_sql
from vault.sql.connection import Connection, connection

BATCH = 500

Note = Callable[[Connection, Mapping[UUID, int], datetime], Awaitable[None]]


class Find(Protocol):
    """Looks for what waits, in one region."""

    async def __call__(
        self, conn: Connection, region: str, limit: int, *, newest: bool
    ) -> list[UUID]:
        """Return the oldest of what waits, or the newest."""


async def purge_shredded(vault: Vault, region: str) -> int:
    """
    Purge a batch of shredded documents that no hold keeps; returns how many.

    Raises what went wrong with some only after the others are noted.
    """
    return await _purge_batch(vault, region, documents_sql.unpurged, documents_sql.set_purged)


async def purge_faxes(vault: Vault, region: str) -> int:
    """Purge a batch of faxes that have ended, in the same way."""
    return await _purge_batch(vault, region, fax_intake_sql.unpurged, fax_intake_sql.set_purged)


async def _purge_batch(vault: Vault, region: str, find: Find, note: Note) -> int:
    gone, failures = dict[str, int](), list[VaultError]()
    for newest in (False, True):
        async with connection(vault.pool) as conn:
            waiting = await find(conn, region, BATCH, newest=newest)
        objects = {object_name(identity): identity for identity in waiting}
        gone, failed = await purge_many(vault.stores[region], objects)
        failures += failed
        if gone:
            async with connection(vault.pool) as conn:
                await note(conn, {objects[name]: gone[name] for name in gone}, vault.clock())
        if gone or not failed:
            break
    if failures:
        raise failures[0]
    return len(gone)
