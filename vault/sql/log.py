"""The access log's statements: append, order, look up."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from uuid import UUID

import asyncpg

from vault.domain.records import Record
from vault.domain.verify import Waiting
from vault.sql.connection import Connection

#: How long a look at the whole log may take.
VERIFY_SECONDS = 3600.0
_SEQUENCER = 0x6C6F6773  # "logs"
_CLOSER = 0x6C6F6763  # "logc"
_PUBLISHER = 0x6C6F6770  # "logp"
#: So long a leader may leave its session idle; one that is stopped, or whose machine is gone, loses
#: its lock then. Longer where a bucket is written meanwhile.
SEQUENCER_IDLE_SECONDS, IDLE_SECONDS = 10, 60
_NAMES = tuple(Record.__dataclass_fields__)
_COLUMNS = ", ".join(f'"{name}"' for name in _NAMES)
FROM_R = ", ".join(f'r."{name}"' for name in _NAMES)
_TYPES = {
    "id": "uuid",
    "intent": "uuid",
    "document": "uuid",
    "order": "uuid",
    "at": "timestamptz",
    "size_bytes": "bigint",
}
#: What is searched: it stands beside a record's place, too.
_SEARCHED = ("at", "action", "principal", "document", "order", "purpose", "decision", "region_to")
_values = attrgetter(*_NAMES)


def _arrays(names: Sequence[str], first: int) -> str:
    """Return parameters from `first` on, an array for each column."""
    return ", ".join(f"${n}::{_TYPES.get(name, 'text')}[]" for n, name in enumerate(names, first))


_SEARCHED_COLUMNS = ", ".join(f'"{name}"' for name in _SEARCHED)


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it is kept: its size, the tree's compact range, and the signed note."""

    size: int
    hashes: list[bytes]
    note: str


def record_of(row: asyncpg.Record) -> Record:
    """Return the record that a row holds."""
    return Record(**{name: row[name] for name in _NAMES})


async def append_records(conn: Connection, records: Sequence[Record]) -> None:
    """Append new records, in the fastest way there is; all or none."""
    await conn.copy_records_to_table("access_record", records=map(_values, records), columns=_NAMES)


async def try_to_record(conn: Connection, record: Record) -> None:
    """
    Append a record and take it back, then commit something, in the caller's transaction.

    The commit writes a message into the WAL and nothing else: it waits for the disk, and for
    synchronous standbys, as the commit of a record does.
    """
    attempt = conn.transaction()
    await attempt.start()
    await append_records(conn, [record])
    await attempt.rollback()
    await conn.execute("select pg_logical_emit_message(true, 'portvault', '')")


def records_insert(parameter: int, where: str = "") -> str:
    """Return the statement, or the part of one, that appends the records of a parameter."""
    return f"""
        insert into access_record ({_COLUMNS})
        select {_COLUMNS} from unnest(${parameter}::record_given[]) {where}
        on conflict (id) do nothing
    """


def record_rows(records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Return the argument of `records_insert`."""
    return list(map(_values, records))


async def insert_records(conn: Connection, records: Sequence[Record]) -> None:
    """Append records, in one statement; one that is there already is left as it is."""
    await conn.execute(records_insert(1), record_rows(records))


async def unfinished_intents(
    conn: Connection, region: str, before: datetime, limit: int
) -> list[Record]:
    """Return allowed intents older than `before` that have no outcome."""
    rows = await conn.fetch(
        f"""
        select {FROM_R} from log_open o join access_record r on r.id = o.intent
        where o.region = $1 and o.at < $2
            and not exists (
                select from log_queue q join access_record w on w.id = q.record
                where q.region = $1 and w.intent = o.intent)
        order by o.at limit $3
        """,
        region,
        before,
        limit,
    )
    return [record_of(row) for row in rows]


async def try_sequencer(conn: Connection, region: str) -> bool:
    """Become the region's only sequencer until the transaction ends."""
    return await _try_lock(conn, _SEQUENCER, region, SEQUENCER_IDLE_SECONDS)


async def await_sequencer(conn: Connection, region: str) -> None:
    """Wait for who orders the region's log now, and keep others from it, in the same way."""
    await conn.execute("select pg_advisory_xact_lock($1, hashtext($2))", _SEQUENCER, region)


async def try_closer(conn: Connection, region: str) -> bool:
    """Become the only one who closes the region's interrupted intents, in the same way."""
    return await _try_lock(conn, _CLOSER, region, IDLE_SECONDS)


async def try_publisher(conn: Connection, region: str) -> bool:
    """Become the only one who publishes the region's log, in the same way."""
    return await _try_lock(conn, _PUBLISHER, region, IDLE_SECONDS)


async def _try_lock(conn: Connection, space: int, region: str, idle_seconds: int) -> bool:
    locked: bool = await conn.fetchval(
        """
        select case when pg_try_advisory_xact_lock($1, hashtext($2))
            then set_config('idle_in_transaction_session_timeout', $3, true) end is not null
        """,
        space,
        region,
        f"{idle_seconds}s",
    )
    return locked


async def take_queue(
    conn: Connection, region: str, limit: int
) -> tuple[list[Record], datetime | None]:
    """
    Take the records that have no place yet, in the order in which they came.

    Returns them, and since when the oldest waited by the database's clock; None when none did.
    """
    rows = await conn.fetch(
        f"""
        with taken as (
            delete from log_queue where region = $1 and number in (
                select number from log_queue where region = $1 order by number limit $2)
            returning record, number, at)
        select {FROM_R}, min(taken.at) over () oldest
        from taken join access_record r on r.id = taken.record
        order by taken.number
        """,
        region,
        limit,
    )
    return [record_of(row) for row in rows], rows[0]["oldest"] if rows else None


async def insert_leaves(
    conn: Connection, region: str, first: int, leaves: Sequence[tuple[Record, bytes]]
) -> None:
    """Give records their places, contiguous from `first`, and what they are found by."""
    await conn.execute(
        f"""
        insert into log_leaf (region, index, record, leaf_hash, {_SEARCHED_COLUMNS})
        select $1, $2 + place - 1, record, hash, {_SEARCHED_COLUMNS}
        from unnest($3::uuid[], $4::bytea[], {_arrays(_SEARCHED, 5)})
            with ordinality leaf (record, hash, {_SEARCHED_COLUMNS}, place)
        """,
        region,
        first,
        [record.id for record, _ in leaves],
        [leaf for _, leaf in leaves],
        *([getattr(record, name) for record, _ in leaves] for name in _SEARCHED),
    )


async def note_open(conn: Connection, region: str, records: Sequence[Record]) -> None:
    """Note which allowed intents among records that got their places wait for an outcome."""
    ended = {record.intent for record in records if record.phase == "outcome"}
    begun = [
        record
        for record in records
        if record.phase == "intent" and record.decision == "allow" and record.id not in ended
    ]
    await conn.execute("delete from log_open where intent = any($1)", list(ended))
    await conn.execute(
        """
        insert into log_open (intent, region, at)
        select intent, $1, at from unnest($2::uuid[], $3::timestamptz[]) begun (intent, at)
        on conflict do nothing
        """,
        region,
        [record.id for record in begun],
        [record.at for record in begun],
    )


async def insert_checkpoint(
    conn: Connection, region: str, signed: Signed, now: datetime, oldest: datetime | None = None
) -> None:
    """
    Keep a signed checkpoint; two of one size cannot be.

    `oldest` says since when the oldest of its new records waits, by the database's clock.
    """
    await conn.execute(
        """
        insert into log_checkpoint (region, size, hashes, note, at, oldest)
        values ($1, $2, $3, $4, $5, $6)
        """,
        region,
        signed.size,
        signed.hashes,
        signed.note,
        now,
        oldest,
    )


async def latest_checkpoint(conn: Connection, region: str) -> Signed | None:
    """Return the newest checkpoint."""
    row = await conn.fetchrow(
        """
        select size, hashes, note from log_checkpoint
        where region = $1 order by size desc limit 1
        """,
        region,
    )
    return Signed(row["size"], row["hashes"], row["note"]) if row else None


async def checkpoint_notes(conn: Connection, region: str, limit: int | None) -> list[str]:
    """Return the newest signed notes, newest first; all without a limit."""
    rows = await conn.fetch(
        "select note from log_checkpoint where region = $1 order by size desc limit $2",
        region,
        limit,
    )
    return [row["note"] for row in rows]


async def look_only(conn: Connection) -> None:
    """Show the transaction, which this must begin, the log as it is at one moment."""
    await conn.execute("set transaction isolation level repeatable read, read only")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A place in the log: its hash, and the record, None where it was trimmed."""

    index: int
    hash: bytes
    record: Record | None


def leaf_of(row: asyncpg.Record) -> Leaf:
    """Return the leaf that a row of `log_leaf`, joined with its record, holds."""
    return Leaf(row["index"], row["leaf_hash"], record_of(row) if row["id"] else None)


async def sequenced(conn: Connection, region: str) -> AsyncIterator[Leaf]:
    """Yield the places of the log, ascending, within a transaction of the caller."""
    async for row in conn.cursor(
        f"""
        select l.index, l.leaf_hash, {FROM_R}
        from log_leaf l left join access_record r on r.id = l.record
        where l.region = $1 order by l.index
        """,
        region,
        prefetch=500,
    ):
        yield leaf_of(row)


async def forgotten(conn: Connection, region: str) -> int:
    """Return how many records have no place in the log and do not wait for one either."""
    found: int = await conn.fetchval(
        """
        select count(*) from access_record r
        where r.region = $1 and not exists (select from log_leaf l where l.record = r.id)
            and not exists (select from log_queue q where q.record = r.id)
        """,
        region,
        timeout=VERIFY_SECONDS,
    )
    return found


# ---- Records that wait: those that were recorded and are under no published checkpoint yet. -----
#
# A record waits in `log_queue` until the sequencer gives it a place, and then until the checkpoint
# that covers its place is in the bucket. How long it waits is told by the database's clock alone.

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


# ---- The statements of the log's own retention: what may go, that it goes, and what says so.


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
