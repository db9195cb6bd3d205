"""
Standbys: whoever could be promoted must have replayed a seal before the old root is destroyed.

Otherwise a fail-over would leave a database whose root nobody can open. What streams from this
server counts, and so does every standby that the configuration names, whether it is there or not.
`pg_basebackup` and `pg_receivewal` are never promoted and do not count.
"""

import asyncio
import time
from collections.abc import Sequence

from keys.errors import StandbyBehindError
from keys.rows import Connection

POLL_SECONDS = 0.05


async def behind(conn: Connection, named: Sequence[str], position: str) -> list[str]:
    """Return the standbys that have not replayed the log up to a position."""
    rows = await conn.fetch(
        """
        select application_name, coalesce(replay_lsn >= $1::text::pg_lsn, false) replayed
        from pg_stat_replication
        where state <> 'backup' and application_name <> 'pg_receivewal'
        """,
        position,
    )
    late = {row["application_name"] for row in rows if not row["replayed"]}
    there = {row["application_name"] for row in rows}
    return sorted(late | (set(named) - there))


async def wait_for_standbys(conn: Connection, named: Sequence[str], seconds: float) -> None:
    """Return once all standbys have replayed what is committed; raises `StandbyBehindError`."""
    position = await conn.fetchval("select pg_current_wal_lsn()::text")
    give_up_at = time.monotonic() + seconds
    while late := await behind(conn, named, position):
        if time.monotonic() > give_up_at:
            raise StandbyBehindError(
                f"{', '.join(late)} has not replayed the seal, so the old root key is kept; start "
                "it, or drop it from `standbys` and from this server if it is never to be "
                "promoted (who reads pg_stat_replication needs the role pg_monitor)"
            )
        await asyncio.sleep(POLL_SECONDS)
