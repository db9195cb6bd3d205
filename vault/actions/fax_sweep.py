"""Sweep up what is left of faxes: receipts whose time is over, and what was never taken."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from vault.actions.bucket import purge_many
from vault.actions.expiry_limits import trusted_time
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.documents import object_name
from vault.domain.records import Record
from vault.errors import VaultError
from vault.sql import fax_intake as fax_intake_sql
from vault.sql.connection import connection, transaction

RECEIPTS_BATCH = 5000


async def forget_receipts(vault: Vault, region: str) -> int:
    """Delete receipts that are older than call detail records may be; returns how many."""
    async with transaction(vault.pool) as conn:
        now = await trusted_time(vault, conn, region)
        before = now - timedelta(days=vault.config.fax_receipt_days_max)
        return await fax_intake_sql.delete_receipts(conn, region, before, RECEIPTS_BATCH)


async def purge_interrupted(
    vault: Vault, region: str, intents: Sequence[Record]
) -> tuple[set[UUID], list[VaultError]]:
    """
    Purge what faxes put into the store whose reception nobody is left to conclude.

    Returns the faxes whose objects may still be there, and what failed.
    """
    begun = {
        intent.document
        for intent in intents
        if intent.action == Action.FAX_RECEIVE and intent.document is not None
    }
    if not begun:
        return set(), []
    async with connection(vault.pool) as conn:
        begun -= await fax_intake_sql.existing(conn, list(begun))
    gone, failures = await purge_many(vault.stores[region], map(object_name, begun))
    return {fax for fax in begun if object_name(fax) not in gone}, failures
