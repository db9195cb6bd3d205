"""The statements of the log's own retention: what may go, that it goes, and what says so."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vault.sql.connection import Connection


@dataclass(frozen=True, slots=True)
class Minimum:
    """Below which size records may be gone, and up to where the bucket's entries are removed."""

    size: int
    purged: int


async def minimum(conn: Connection, region: str) -> Minimum:
    """Return how far the log is trimmed."""
    row = await conn.fetchrow("select size, purged from log_minimum where region = $1", region)
    return Minimum(row["size"], row["purged"]) if row else Minimum(0, 0)


async def first_to_keep(
    conn: Connection, region: str, first: int, limit: int, before: datetime
) -> int:
    """Return the first place from `first` on that is not older, at most `limit` places further."""
    index: int = await conn.fetchval(
        """
        select coalesce(
            (select index from log_leaf where region = $1 and index >= $2
                and index < least(p.size, $2 + $3) and (at is null or at >= $4)
                order by index limit 1),
            least(p.size, $2 + $3))
        from (select coalesce(max(size), 0) size from log_published where region = $1) p
        """,
        region,
        first,
        limit,
        before,
    )
    return max(index, first)


async def set_minimum(conn: Connection, region: str, size: int, note: str) -> None:
    """Keep the signed statement of how far the log is trimmed; it never goes back."""
    await conn.execute("select declare_log_minimum($1, $2, $3)", region, size, note)


async def set_purged(conn: Connection, region: str, size: int) -> None:
    """Note up to where the bucket's entries are removed."""
    await conn.execute("update log_minimum set purged = $2 where region = $1", region, size)


async def trim(conn: Connection, region: str, first: int, size: int) -> int:
    """Drop what the records from `first` up to `size` say; the database checks that all may go."""
    trimmed: int = await conn.fetchval("select trim_log($1, $2, $3)", region, first, size)
    return trimmed


async def insert_trimmed(conn: Connection, region: str, first: int, leaves: list[bytes]) -> None:
    """Add places whose records are gone; ids that nobody has stand in for theirs."""
    await conn.executemany(
        "insert into log_leaf (region, index, record, leaf_hash) values ($1, $2, $3, $4)",
        [(region, index, UUID(bytes=leaf[:16]), leaf) for index, leaf in enumerate(leaves, first)],
    )
