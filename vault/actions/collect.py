"""
Collect: sweep up what no longer belongs to anybody.

Uploads that never ended, whose keys were never stored; and the objects of shredded documents. That
is hygiene: neither can be decrypted any more.
"""

from datetime import timedelta
from uuid import UUID

from vault.context import Vault
from vault.domain.documents import object_name
from vault.sql import documents as documents_sql
from vault.sql.connection import connection, transaction

BATCH = 100


async def drop_upload(vault: Vault, region: str, document: UUID) -> None:
    """Purge the object of an upload that did not end well, and forget its row."""
    async with transaction(vault.pool) as conn:
        # The lock waits for a commit whose answer was lost: what that stored is not dropped.
        if await documents_sql.lock_receiving(conn, document):
            await vault.stores[region].purge(object_name(document))
            await documents_sql.delete_receiving(conn, document)


async def collect_abandoned(vault: Vault, region: str) -> int:
    """Drop uploads older than `receiving_seconds_max`; returns how many there were."""
    before = vault.clock() - timedelta(seconds=vault.config.receiving_seconds_max)
    for count in range(BATCH):
        async with transaction(vault.pool) as conn:
            document = await documents_sql.lock_abandoned(conn, region, before)
            if document is None:
                return count
            await vault.stores[region].purge(object_name(document))
            await documents_sql.delete_receiving(conn, document)
    return BATCH


async def purge_shredded(vault: Vault, region: str) -> int:
    """Purge every version of the objects of shredded documents; returns how many documents."""
    async with connection(vault.pool) as conn:
        documents = await documents_sql.unpurged(conn, region, BATCH)
    for document in documents:
        versions = await vault.stores[region].purge(object_name(document))
        async with connection(vault.pool) as conn:
            await documents_sql.set_purged(conn, document, versions, vault.clock())
    return len(documents)
