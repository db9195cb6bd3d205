"""The statements of what others are shown of the log, and of what witnesses said of it."""

from datetime import datetime
from uuid import UUID

from vault.sql.connection import Connection

# A note ends with its signatures, so those of witnesses are added by writing them behind it.
_COSIGNED = """
    select c.size, c.note || coalesce(string_agg(w.line, '' order by w.witness), '') note
    from log_checkpoint c left join log_cosignature w using (region, size)
"""


async def published_note(conn: Connection, region: str) -> tuple[int, str] | None:
    """Return size and note of the checkpoint that is published, with its cosignatures."""
    row = await conn.fetchrow(
        f"""
        {_COSIGNED} join log_published p using (region, size)
        where c.region = $1 group by c.region, c.size
        """,
        region,
    )
    return (row["size"], row["note"]) if row else None


async def witnessed_note(conn: Connection, region: str) -> tuple[int, str] | None:
    """Return size and note of the largest checkpoint that a witness has cosigned."""
    row = await conn.fetchrow(
        f"""
        {_COSIGNED}
        where c.region = $1 and c.size = (
            select max(size) from log_cosignature where region = $1)
        group by c.region, c.size
        """,
        region,
    )
    return (row["size"], row["note"]) if row else None


async def cosigned_notes(conn: Connection, region: str, limit: int) -> list[str]:
    """Return the newest checkpoints that a witness has cosigned, as notes."""
    rows = await conn.fetch(
        f"""
        {_COSIGNED}
        where c.region = $1 and c.size in (select size from log_cosignature where region = $1)
        group by c.region, c.size order by c.size desc limit $2
        """,
        region,
        limit,
    )
    return [row["note"] for row in rows]


async def checkpoints_between(
    conn: Connection, region: str, first: int, last: int
) -> list[tuple[int, str]]:
    """Return size and note of checkpoints past `first` up to `last`: cosigned, and the last."""
    rows = await conn.fetch(
        f"""
        {_COSIGNED}
        where c.region = $1 and c.size > $2 and c.size <= $3 and (w.size is not null
            or c.size = (select max(size) from log_checkpoint
                where region = $1 and size > $2 and size <= $3))
        group by c.region, c.size order by c.size
        """,
        region,
        first,
        last,
    )
    return [(row["size"], row["note"]) for row in rows]


async def minimum_note(conn: Connection, region: str) -> str | None:
    """Return the signed statement of up to where records were trimmed."""
    note: str | None = await conn.fetchval("select note from log_minimum where region = $1", region)
    return note


async def insert_cosignature(
    conn: Connection, region: str, size: int, witness: str, line: str, now: datetime
) -> None:
    """Keep what a witness said of a checkpoint; the first time counts."""
    await conn.execute(
        """
        insert into log_cosignature (region, size, witness, line, at)
        values ($1, $2, $3, $4, $5) on conflict do nothing
        """,
        region,
        size,
        witness,
        line,
        now,
    )


async def place_of_record(conn: Connection, region: str, record: UUID) -> int | None:
    """Return where a record stands in its region's log."""
    index: int | None = await conn.fetchval(
        "select index from log_leaf where record = $2 and region = $1", region, record
    )
    return index


async def is_waiting(conn: Connection, region: str, record: UUID) -> bool:
    """Whether a record is there and has no place yet."""
    waiting: bool = await conn.fetchval(
        """
        select exists (select from access_record where id = $2 and region = $1)
            and not exists (select from log_leaf where record = $2)
        """,
        region,
        record,
    )
    return waiting


async def is_published(conn: Connection, region: str, record: UUID) -> bool:
    """Whether a record is under the checkpoint that is published."""
    published: bool = await conn.fetchval(
        """
        select exists (select from log_leaf l join log_published p using (region)
            where l.region = $1 and l.record = $2 and l.index < p.size)
        """,
        region,
        record,
    )
    return published
