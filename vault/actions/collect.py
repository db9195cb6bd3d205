"""
Collect: sweep up uploads that never ended.

Their keys were never kept, so nothing in the database opens them. But a wrap that was sent to it in
a transaction that was rolled back, or cut short by a crash, may be in its WAL, where the key of a
living scope would open it: so the scope gets a fresh key with the next seal.
"""

import time
from datetime import timedelta
from uuid import UUID

from vault.actions.bucket import PURGE_SECONDS
from vault.context import Vault
from vault.domain.documents import object_name
from vault.errors import VaultError
from vault.sql import documents as documents_sql
from vault.sql.connection import transaction

BATCH = 100


async def drop_upload(vault: Vault, region: str, document: UUID, *, wrapped: bool) -> None:
    """
    Purge the object of an upload that did not end well, and forget its row.

    `wrapped` says that its wrapped key was sent to the database.
    """
    async with transaction(vault.pool) as conn:
        # The lock waits for a commit whose answer was lost: what that stored is not dropped.
        if (order := await documents_sql.lock_receiving(conn, document)) is not None:
            await vault.stores[region].purge(object_name(document))
            if wrapped:
                await vault.keyring.doubt(conn, region, order)
            await documents_sql.delete_receiving(conn, document)


async def collect_abandoned(vault: Vault, region: str) -> int:
    """
    Drop uploads older than `receiving_seconds_max`; returns how many there were.

    One whose object cannot be purged holds up no other, and raises in the end.
    """
    before = vault.clock() - timedelta(seconds=vault.config.receiving_seconds_max)
    left, failures, count = list[UUID](), list[VaultError](), 0
    last = time.monotonic() + PURGE_SECONDS
    while count + len(left) < BATCH and time.monotonic() <= last:
        async with transaction(vault.pool) as conn:
            found = await documents_sql.lock_abandoned(conn, region, before, left)
            if found is None:
                break
            document, order = found
            try:
                await vault.stores[region].purge(object_name(document))
            except VaultError as error:
                left.append(document)
                failures.append(error)
            else:
                # Nobody is left who knows whether its key was sent.
                await vault.keyring.doubt(conn, region, order)
                await documents_sql.delete_receiving(conn, document)
                count += 1
    if failures:
        raise failures[0]
    return count
