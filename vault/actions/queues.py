"""What waits: how much of each queue, for how long, and which of them wait for too long."""

from collections.abc import Mapping
from dataclasses import dataclass

from vault.actions.records import INTERRUPTED_SECONDS
from vault.config import Config
from vault.sql import health as health_sql
from vault.sql.connection import Connection
from vault.sql.health import Bounds, Length

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


def late_seconds(config: Config) -> dict[str, float]:
    """Return for each queue after how many seconds what waits in it waits for too long."""
    own = {
        "log": config.record_publish_seconds_max,
        "seal": config.seal_seconds_max,
        "mark-sealed": config.seal_seconds_max + LATE_SECONDS,
        "mirror": config.mirror_interval_seconds + LATE_SECONDS,
        "fax-custody": config.fax_custody_seconds_max / 2,
        "signals-dead": 0.0,
    }
    return {name: own.get(name, LATE_SECONDS) for name in health_sql.ROWS}


async def queues_of(config: Config, conn: Connection, region: str) -> list[Waiting]:
    """Return all queues of a region, those too in which nothing waits."""
    bounds = Bounds(
        custody_seconds=config.fax_custody_seconds_max,
        receiving_seconds=config.receiving_seconds_max,
        interrupted_seconds=INTERRUPTED_SECONDS,
    )
    found, late = await health_sql.lengths(conn, region, bounds), late_seconds(config)
    return [
        Waiting(name, length, length.count > 0 and length.seconds > late[name])
        for name, length in found.items()
    ]
