"""What waits, how long, and whether the vault is ready: queues, and a probe of each part."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from vault.actions.access import own_intent
from vault.actions.bucket import require_own_store
from vault.actions.log_records import INTERRUPTED_SECONDS
from vault.actions.policy import fax_custody_of
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Action
from vault.process.outages import Outages, reason_of
from vault.sql import health as health_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection, transaction
from vault.sql.health import Bounds, Length

# ---- What waits: how much of each queue, for how long, and which of them wait for too long. -----

#: The steps of a worker that runs look every few seconds: what waits for longer is stuck.
LATE_SECONDS = 900.0
_WORKER = "see that a worker runs and what its log says"
#: What to do about a queue that is late, in an order of what it costs not to.
REMEDIES: Mapping[str, str] = {
    "log": f"{_WORKER} of publishing; until then nothing is handed out",
    "seal": f"{_WORKER}, and what `portvault keys seal` says",
    "mark-sealed": f"{_WORKER}, and what `portvault keys seal` says",
    "mirror": f"{_WORKER} of the store: after a loss of the database, what changed since is lost",
    "expire": f"{_WORKER}; documents are kept for longer than they should be",
    "fax-expire": f"{_WORKER}; faxes are kept for longer than they should be",
    "review": f"{_WORKER}; until it has judged them anew, documents go by their earlier time",
    "order-details": f"{_WORKER}; names and numbers are kept for longer than they should be",
    "purge": f"{_WORKER} of the store; nothing opens those objects, and they may still be there",
    "fax-purge": f"{_WORKER} of the store; nothing opens those objects, they may still be there",
    "certify": f"{_WORKER}; nobody has a certificate of what was destroyed",
    "number-index": f"{_WORKER}; orders may not be found by their numbers",
    "deliver": f"{_WORKER}; the endpoint was not told (`portvault signal list`)",
    "signals-dead": "mend the endpoint, then `portvault signal replay ID` (`signal list` names it)",
    "fax-relay": f"{_WORKER}, and that the next hop for mail takes them",
    "fax-custody": "half of their time is over: see that the gateway fetches or mail takes them",
    "collect": f"{_WORKER} of the store; what was uploaded in part is still there",
    "interrupted": f"{_WORKER}; reads of processes that died have no outcome in the log",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queue of a region: its length, whether it is late, and since when what was done is done."""

    name: str
    length: Length
    late: bool

    def __str__(self) -> str:
        count, seconds = self.length.count, self.length.seconds
        many = f"{count} or more" if count >= health_sql.COUNT_MAX else str(count)
        return (
            f"{self.name}: {many} wait, the oldest for {seconds / 60:.0f} min: "
            + (REMEDIES[self.name])
        )


def late_seconds(config: Config, custody_seconds: float) -> dict[str, float]:
    """
    Return for each queue after how many seconds what waits in it waits for too long.

    `custody_seconds` is how long a fax of the region waits for its delivery at most.
    """
    own = {
        "log": config.record_publish_seconds_max,
        "seal": config.seal_seconds_max,
        "mark-sealed": config.seal_seconds_max + LATE_SECONDS,
        "mirror": config.mirror_interval_seconds + LATE_SECONDS,
        "fax-custody": custody_seconds / 2,
        "signals-dead": 0.0,
    }
    return {name: own.get(name, LATE_SECONDS) for name in health_sql.ROWS}


async def queues_of(config: Config, conn: Connection, region: str) -> list[Waiting]:
    """Return all queues of a region, those too in which nothing waits."""
    custody_seconds = (await fax_custody_of(config, conn, region)).keep_max.total_seconds()
    bounds = Bounds(
        custody_seconds=custody_seconds,
        receiving_seconds=config.receiving_seconds_max,
        interrupted_seconds=INTERRUPTED_SECONDS,
    )
    found = await health_sql.lengths(conn, region, bounds)
    late = late_seconds(config, custody_seconds)
    return [
        Waiting(name, length, length.count > 0 and length.seconds > late[name])
        for name, length in found.items()
    ]


# ---- Readiness: whether no part is away that every read of a region takes. ----------------------
#
# A part is looked at by doing what a read does with it: an intent is recorded (and taken back,
# with a commit beside it), the root key is unwrapped by the custodian, the key tree is opened from
# its root down to a scope, an object is fetched from the store. What else lies at rest (each page
# of the tree, single objects) is `look.py`'s to judge. Beside them, no record may wait for too
# long to be published, and no seal be overdue: what is shredded meanwhile would not become
# irrecoverable.

log = logging.getLogger(__name__)
_outages = Outages(log)

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
        _outages.failed(f"not ready: {part} {region}", reason_of(error))
        return True
    _outages.works(f"not ready: {part} {region}")
    return False
