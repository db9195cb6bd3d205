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


async def behind(
    conn: Connection, named: Sequence[str], position: str | None = None
) -> tuple[list[str], str]:
    """Return the standbys that have not replayed the log up to a position, or to now; and it."""
    rows = await conn.fetch(
        """
        select position::text, application_name, coalesce(replay_lsn >= position, false) replayed
        from coalesce($1::text::pg_lsn, pg_current_wal_lsn()) position
            left join pg_stat_replication
                on state <> 'backup' and application_name <> 'pg_receivewal'
        """,
        position,
    )
    position = rows[0]["position"]
    rows = [row for row in rows if row["application_name"] is not None]
    late = {row["application_name"] for row in rows if not row["replayed"]}
    there = {row["application_name"] for row in rows}
    return sorted(late | (set(named) - there)), position


async def wait_for_standbys(conn: Connection, named: Sequence[str], seconds: float) -> None:
    """Return once all standbys have replayed what is committed; raises `StandbyBehindError`."""
    late, position = await behind(conn, named)
    give_up_at = time.monotonic() + seconds
    while late:
        if time.monotonic() > give_up_at:
            raise StandbyBehindError(
                f"{', '.join(late)} has not replayed the seal, so the old root key is kept; start "
                "it, or drop it from `standbys` and from this server if it is never to be "
                "promoted (who reads pg_stat_replication needs the role pg_monitor)"
            )
        await asyncio.sleep(POLL_SECONDS)
        late, _ = await behind(conn, named, position)
