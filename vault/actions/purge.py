"""
Purge: remove every version of the objects of what was shredded, which nothing opens any more.

An object that cannot be removed holds up no other. The rest of its batch goes; and where of the
oldest none can be removed, the newest are tried, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from vault.context import ObjectStore, Vault
from vault.domain.documents import object_name
from vault.errors import VaultError
from vault.sql import documents as documents_sql
from vault.sql import fax_sweep as faxes_sql
from vault.sql.connection import Connection, connection

BATCH = 500
#: Objects that are purged at the same time.
TOGETHER = 8

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
    return await _purge_batch(vault, region, faxes_sql.unpurged, faxes_sql.set_purged)


async def _purge_batch(vault: Vault, region: str, find: Find, note: Note) -> int:
    purged, failures = dict[UUID, int](), list[VaultError]()
    for newest in (False, True):
        async with connection(vault.pool) as conn:
            waiting = await find(conn, region, BATCH, newest=newest)
        purged = await _purge(vault.stores[region], waiting, failures)
        if purged:
            async with connection(vault.pool) as conn:
                await note(conn, purged, vault.clock())
        if purged or not failures:
            break
    if failures:
        raise failures[0]
    return len(purged)


async def _purge(
    store: ObjectStore, identities: Sequence[UUID], failures: list[VaultError]
) -> dict[UUID, int]:
    """Return how many versions each object had that is gone now; adds what went wrong."""
    waiting, purged = iter(identities), dict[UUID, int]()

    async def purge() -> None:
        for identity in waiting:
            try:
                purged[identity] = await store.purge(object_name(identity))
            except VaultError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(purge())
    return purged
