"""
Published first: what cannot be undone waits until its record lies outside the database's reach.

Destroying a root key, restoring, and reading what a role alone may not read are begun only when the
intent is under a checkpoint in the region's bucket: no rollback of the database can forget it.
"""

import asyncio

from vault.actions.access import Access
from vault.actions.publish import publish_log
from vault.actions.sequence import sequence_log
from vault.context import Vault
from vault.domain.records import Record
from vault.errors import RecordsUnavailableError
from vault.sql import log_published as published_sql
from vault.sql.connection import connection

LOOK_SECONDS = 0.05


async def wait_published(access: Access) -> None:
    """
    Return once the intent is under a published checkpoint, in each log where it stands.

    Does itself what a worker would do. Raises what keeps a log from being published, within
    `store_timeout_seconds` for each.
    """
    for one in access.everywhere:
        await _wait(one.vault, one.intent)


async def _wait(vault: Vault, intent: Record) -> None:
    try:
        async with asyncio.timeout(vault.config.store_timeout_seconds):
            while True:
                await sequence_log(vault, intent.region)
                await publish_log(vault, intent.region)
                async with connection(vault.pool) as conn:
                    if await published_sql.is_published(conn, intent.region, intent.id):
                        return
                # Somebody else orders or publishes at this moment.
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise RecordsUnavailableError(
            "the record could not be published in time, so nothing was done; try again"
        ) from None
