"""The statements of an export: which places a time covers, and what stands in them."""

from datetime import datetime

from vault.sql.connection import Connection
from vault.sql.log import FROM_R, Leaf, leaf_of


async def stretch(
    conn: Connection,
    region: str,
    size: int,
    *,
    since: datetime | None,
    until: datetime | None,
) -> tuple[int, int]:
    """Return from which place to which, exclusive, the records of a time stand; all by default."""
    if since is None and until is None:
        return 0, size
    row = await conn.fetchrow(
        """
        select min(index) first, max(index) + 1 last from log_leaf
        where region = $1 and index < $2 and at is not null
            and ($3::timestamptz is null or at >= $3) and ($4::timestamptz is null or at < $4)
        """,
        region,
        size,
        since,
        until,
    )
    if row is None or row["first"] is None:
        return size, size
    return row["first"], row["last"]


async def leaves(conn: Connection, region: str, first: int, last: int) -> list[Leaf]:
    """Return what stands in the places from `first` up to `last`, exclusive."""
    rows = await conn.fetch(
        f"""
        select l.index, l.leaf_hash, {FROM_R}
        from log_leaf l left join access_record r on r.id = l.record
        where l.region = $1 and l.index >= $2 and l.index < $3 order by l.index
        """,
        region,
        first,
        last,
    )
    return [leaf_of(row) for row in rows]
