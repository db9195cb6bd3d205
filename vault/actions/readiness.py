"""
Readiness: whether no part is away that every read of a region takes.

A part is looked at by doing what a read does with it: an intent is recorded (and taken back, with a
commit beside it), the root key is unwrapped by the custodian, the key tree is opened from its root
down to a scope, an object is fetched from the store. What else lies at rest (each page of the tree,
single objects) is `look.py`'s to judge. Beside them, no record may wait for too long to be
published, and no seal be overdue: what is shredded meanwhile would not become irrecoverable.
"""

import asyncio
import logging
from collections.abc import Awaitable

from vault.actions.access import own_intent
from vault.actions.stores import require_own_store
from vault.context import Vault
from vault.domain.access import Action
from vault.sql import log as log_sql
from vault.sql.connection import transaction

log = logging.getLogger(__name__)

#: How long each part may take.
PART_SECONDS = 3.0
RECORDS, KEYS, TREE, OBJECTS, LOG, SEALS = "records", "keys", "tree", "objects", "log", "seals"


async def parts_away(vault: Vault) -> dict[str, tuple[str, ...]]:
    """
    Return, for each region, the parts that are away, or overdue; none where it is ready.

    Takes twice `PART_SECONDS` at most. Why a part is away stands in the process's log, not in the
    answer, which strangers may see.
    """
    overdue = vault.config.seal_seconds_max
    async with asyncio.TaskGroup() as group:
        records = group.create_task(_is_away(RECORDS, "", _record(vault)))
        keys = {
            region: group.create_task(_keys_away(vault, region)) for region in vault.config.regions
        }
        objects = {
            region: group.create_task(
                _is_away(
                    OBJECTS, region, require_own_store(vault.pool, vault.stores[region], region)
                )
            )
            for region in vault.config.regions
        }
        seals = {
            region: group.create_task(
                _is_away(SEALS, region, vault.keyring.require_sealed(region, overdue))
            )
            for region in vault.config.regions
        }
    standing = vault.log_watch.standing()
    return {
        region: tuple(
            part
            for part, away in (
                (RECORDS, records.result()),
                (KEYS, keys[region].result() == KEYS),
                (TREE, keys[region].result() == TREE),
                (OBJECTS, objects[region].result()),
                (LOG, region in standing),
                (SEALS, seals[region].result()),
            )
            if away
        )
        for region in vault.config.regions
    }


async def _keys_away(vault: Vault, region: str) -> str | None:
    """Return which of the two is away; the tree is opened under what the custodian unwrapped."""
    if await _is_away(KEYS, region, vault.keyring.check(region)):
        return KEYS
    return TREE if await _is_away(TREE, region, vault.keyring.check_tree(region)) else None


async def _record(vault: Vault) -> None:
    """Record an intent and take it back; raises where none can be recorded."""
    intent = own_intent(vault, Action.DOCUMENT_READ, vault.config.regions[0], reason="probe")
    async with transaction(vault.pool) as conn:
        await log_sql.try_to_record(conn, intent)


async def _is_away(part: str, region: str, use: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(PART_SECONDS):
            await use
    except Exception as error:  # noqa: BLE001 - whatever it is, the part cannot be used
        log.warning("not ready: %s %s: %s", part, region, str(error) or type(error).__name__)
        return True
    return False
