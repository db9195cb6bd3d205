"""The statements of the published log: how far it is, and how a database is brought up to it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.merkle import CompactRange
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.log import insert_leaves, insert_records, note_open

_REFUSING = (
    ("access_record", "insert_only"),
    ("access_record", "floor"),
    ("log_leaf", "insert_only"),
    ("log_leaf", "floor"),
    ("log_checkpoint", "insert_only"),
)


#: The published records that the database did not have: what it has yet to follow.
LEARNED = """
    create temporary table if not exists learned (record uuid primary key, index bigint)
        on commit drop
"""


async def published_size(conn: Connection, region: str) -> int:
    """Return how many records the bucket is known to hold."""
    size: int | None = await conn.fetchval(
        "select size from log_published where region = $1", region
    )
    return size or 0


async def set_published(conn: Connection, region: str, size: int) -> None:
    """Note how many records the bucket holds."""
    await conn.execute(
        """
        insert into log_published (region, size) values ($1, $2)
        on conflict (region) do update set size = excluded.size
        """,
        region,
        size,
    )


async def checkpoint_of_size(conn: Connection, region: str, size: int) -> str | None:
    """Return the signed note of a checkpoint."""
    note: str | None = await conn.fetchval(
        "select note from log_checkpoint where region = $1 and size = $2", region, size
    )
    return note


async def compact_range(conn: Connection, region: str, size: int) -> CompactRange | None:
    """
    Return the compact range of the checkpoint of a size, an empty one when there is none.

    None where it is damaged so that it cannot be of that size; it is not verified otherwise.
    """
    hashes: list[bytes] | None = await conn.fetchval(
        "select hashes from log_checkpoint where region = $1 and size = $2", region, size
    )
    if not hashes:
        return CompactRange()
    return CompactRange(size, hashes) if len(hashes) == size.bit_count() else None


async def begin_rewriting(conn: Connection) -> None:
    """Switch off, until `end_rewriting` or a rollback, what refuses changes; for the owner only."""
    for table, what in _REFUSING:
        await conn.execute(f"alter table {table} disable trigger {table}_{what}")
    await conn.execute(LEARNED)


async def end_rewriting(conn: Connection) -> None:
    """Refuse changes again."""
    for table, what in _REFUSING:
        await conn.execute(f"alter table {table} enable trigger {table}_{what}")


async def cut_log(conn: Connection, region: str, size: int) -> None:
    """Take their places from the records from `size` on; they wait for new ones."""
    await conn.execute(
        """
        with cut as (
            delete from log_leaf where region = $1 and index >= $2 returning record, index),
        again as (select record from cut order by index)
        insert into log_queue (record, region) select record, $1 from again
        """,
        region,
        size,
    )
    await conn.execute("delete from log_checkpoint where region = $1 and size > $2", region, size)


async def adopt(
    conn: Connection,
    region: str,
    first: int,
    records: Sequence[Record],
    leaves: Sequence[bytes],
) -> None:
    """Add published records where they are missing, and give them their places."""
    await conn.execute(
        """
        insert into learned (record, index)
        select id, $2 + place - 1 from unnest($1::uuid[]) with ordinality given (id, place)
        where not exists (select from access_record r where r.id = given.id)
        """,
        [record.id for record in records],
        first,
    )
    await insert_records(conn, records)
    await insert_leaves(conn, region, first, list(zip(records, leaves, strict=True)))
    await note_open(conn, region, records)
    await conn.execute(
        "delete from log_queue where record = any($1)", [record.id for record in records]
    )


# ---- The statements of what others are shown of the log, and of what witnesses said of it. ------

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
