"""What the doctor says of what does not go by its time, though it may have come."""

from datetime import UTC, datetime

from vault.actions.expire import why_stopped
from vault.config import Config
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection


async def stopped(config: Config, conn: Connection) -> dict[str, str]:
    """Return of each region in which not everything goes by its time why that is."""
    now, found = datetime.now(UTC), dict[str, str]()
    for region in config.regions:
        if why := await why_stopped(config, conn, region, now):
            found[region] = why
    return found


async def ends_not_known(config: Config, conn: Connection) -> dict[str, tuple[str, str]]:
    """Return of each region that orders in it may have ended, which a restore could not tell."""
    found = dict[str, tuple[str, str]]()
    for region in config.regions:
        if count := await orders_sql.count_end_not_known(conn, region):
            orders = "1 order is" if count == 1 else f"{count} orders are"
            said = (
                f"{orders} open since a restore though a carrier had said its end, so nothing of "
                "it goes by its time: `portvault order list` shows what was recovered; say the end "
                "with `portvault order complete ID` or `cancel ID`"
            )
            found[region] = ("warn", said)
    return found
