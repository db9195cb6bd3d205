"""
Records that wait: those that were recorded and are under no published checkpoint yet.

A record waits in `log_queue` until the sequencer gives it a place, and then until the checkpoint
that covers its place is in the bucket. How long it waits is told by the database's clock alone.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.records import Record
from vault.domain.verify import Waiting
from vault.sql.connection import Connection
from vault.sql.log import FROM_R, VERIFY_SECONDS, record_of

_PUBLISHED = "coalesce((select size from log_published where region = p.region), 0)"
# The queue and the checkpoints are in the order of time, so that the first of each is the oldest.
_OLDEST = f"""
    select p.region, least(
        (select at from log_queue where region = p.region order by number limit 1),
        (select coalesce(oldest, at) from log_checkpoint
            where region = p.region and size > {_PUBLISHED} order by size limit 1)) since
    from unnest($1::text[]) p (region)
"""


async def waiting_seconds(conn: Connection, regions: Sequence[str]) -> dict[str, float | None]:
    """Return how long each region's oldest waiting record waits; None where none does."""
    rows = await conn.fetch(
        f"""
        select region, extract(epoch from clock_timestamp() - since)::float8 seconds
        from ({_OLDEST}) oldest
        """,
        list(regions),
    )
    return {row["region"]: row["seconds"] for row in rows}


async def waiting(conn: Connection, region: str) -> Waiting:
    """Return how many records of a region wait, and since when."""
    row = await conn.fetchrow(
        f"""
        select since, extract(epoch from clock_timestamp() - since)::float8 seconds,
            {_PUBLISHED} published,
            (select count(*) from log_queue where region = p.region) queued,
            coalesce((select max(size) from log_checkpoint where region = p.region), 0) size
        from ({_OLDEST}) p
        """,
        [region],
        timeout=VERIFY_SECONDS,
    )
    if row is None:
        raise LookupError("a row of what waits")
    return Waiting(
        first=row["published"],
        count=row["queued"] + max(0, row["size"] - row["published"]),
        since=row["since"],
        seconds=row["seconds"] or 0.0,
    )


async def waiting_records(
    conn: Connection,
    region: str,
    size: int,
    *,
    since: datetime | None,
    until: datetime,
    limit: int,
) -> tuple[int, list[UUID]]:
    """
    Return how many records of a time are not among the log's first `size`, and the oldest of them.

    In one statement, since a record may get its place at any moment.
    """
    rows = await conn.fetch(
        """
        select r.id, count(*) over () number from access_record r
        join (
            select record from log_leaf where region = $1 and index >= $2
            union all select record from log_queue where region = $1) w on w.record = r.id
        where r.at <= $4 and ($3::timestamptz is null or r.at >= $3)
        order by r.at, r.id limit $5
        """,
        region,
        size,
        since,
        until,
        limit,
    )
    return (rows[0]["number"] if rows else 0), [row["id"] for row in rows]


async def records_of(conn: Connection, identities: Sequence[UUID]) -> list[Record]:
    """Return records by their ids, the oldest first."""
    rows = await conn.fetch(
        f"select {FROM_R} from access_record r where r.id = any($1) order by r.at, r.id",
        list(identities),
    )
    return [record_of(row) for row in rows]
