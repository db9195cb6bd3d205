"""The statements of the published log: how far it is, and how a database is brought up to it."""

from collections.abc import Sequence

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
