"""Sweep up what is left of faxes: objects of the shredded, and receipts whose time is over."""

import asyncio
from datetime import timedelta
from uuid import UUID

from vault.context import Vault
from vault.domain.access import Action
from vault.domain.documents import object_name
from vault.domain.records import Record
from vault.errors import VaultError
from vault.sql import fax_sweep as sweep_sql
from vault.sql.connection import connection

BATCH = 500
#: Objects that are purged at the same time.
TOGETHER = 8
RECEIPTS_BATCH = 5000


async def purge_faxes(vault: Vault, region: str) -> int:
    """
    Purge every version of the objects of faxes that have ended; returns how many.

    One that cannot be purged holds up no other, and raises after all that can be are noted.
    """
    async with connection(vault.pool) as conn:
        faxes = await sweep_sql.unpurged(conn, region, BATCH)
    waiting, purged, failures = iter(faxes), list[UUID](), list[VaultError]()

    async def purge() -> None:
        for fax in waiting:
            try:
                await vault.stores[region].purge(object_name(fax))
                purged.append(fax)
            except VaultError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(purge())
    if purged:
        async with connection(vault.pool) as conn:
            await sweep_sql.set_purged(conn, purged, vault.clock())
    if failures:
        raise failures[0]
    return len(purged)


async def forget_receipts(vault: Vault, region: str) -> int:
    """Delete receipts that are older than call detail records may be; returns how many."""
    before = vault.clock() - timedelta(days=vault.config.fax_receipt_days_max)
    async with connection(vault.pool) as conn:
        return await sweep_sql.delete_receipts(conn, region, before, RECEIPTS_BATCH)


async def purge_interrupted(vault: Vault, region: str, intents: list[Record]) -> None:
    """Purge what faxes put into the store whose reception nobody is left to conclude."""
    faxes = [
        intent.document
        for intent in intents
        if intent.action == Action.FAX_RECEIVE and intent.document is not None
    ]
    if not faxes:
        return
    async with connection(vault.pool) as conn:
        taken = await sweep_sql.existing(conn, faxes)
    for fax in faxes:
        if fax not in taken:
            await vault.stores[region].purge(object_name(fax))
