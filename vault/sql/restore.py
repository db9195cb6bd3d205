"""The statements that make the documents' rows agree with a restored key tree and log."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.generations import SERVING
from vault.domain.access import Action
from vault.domain.documents import FAX
from vault.sql.connection import Connection

#: What a record of a restore says of a document that it was told to leave behind.
LEFT = "left"
#: The actions whose completed outcomes say that a fax has ended, and that a key left the tree.
FAX_ENDS = f"('{Action.FAX_DELIVER}', '{Action.FAX_FAIL}', '{Action.FAX_EXPIRE}')"
SHREDS = f"('{Action.DOCUMENT_SHRED}', {FAX_ENDS[1:]}"

# What is said of a row whose key is in no copy of the tree, and of which no shred is recorded.
_NO_KEY = f"""coalesce((
    select 'the seal of the restore of ' || to_char(max(r.at) at time zone 'UTC', 'YYYY-MM-DD')
        || ' destroyed the root key that it hung on'
    from learned n join access_record r on r.id = n.record
    where r.region = $1 and r.action = '{Action.KEYS_RESTORE}' and r.reason is null
        and r.phase = 'outcome' and r.result = 'completed'), 'its key is in no copy of the tree')
    || '; the log knows of no shred, and its object stays'"""
# An upload that was there already has no size in its outcome: nothing was stored under its id.
# Every document that a row, a key or the log knows of, and what is left of it. A key that has its
# scope's id is no document's: it is that of an order's details, or of the index of numbers.
_LINES = f"""
    with known as (
        select id from document where region = $1 and custody <> 'receiving'
        union select id from fax where region = $1
        union select id from data_key where region = $1 and id <> scope
        union select document from access_record where region = $1
            and (action = '{Action.FAX_RECEIVE}'
                or (action = '{Action.DOCUMENT_INGEST}' and size_bytes is not null))
            and phase = 'outcome' and result = 'completed' and reason is null),
    found as (
        select known.id, coalesce(d.order_id, said."order") order_id,
            case when f.id is null then coalesce(d.kind, said.kind) else '{FAX}' end kind,
            coalesce(d.custody, f.custody) custody, coalesce(d.recovered_at, f.recovered_at)
            recovered_at, coalesce(d.shred_reason, f.result) shred_reason,
            k.id is not null has_key, o.id is not null has_object, {_NO_KEY} no_key,
            exists (select from access_record r where r.document = known.id
                and r.action in {SHREDS} and r.phase = 'outcome'
                and r.result = 'completed' and r.reason is null) was_shredded,
            (select max(r.at) from access_record r where r.document = known.id
                and r.action = '{Action.KEYS_RESTORE}' and r.phase = 'progress'
                and r.reason = '{LEFT}'
                ) left_at
        from known left join document d on d.id = known.id and d.custody <> 'receiving'
            left join fax f on f.id = known.id
            left join data_key k on k.id = known.id
            left join found_object o on o.id = $2 || known.id::text
            left join lateral (
                select r."order", case r.action
                    when '{Action.FAX_RECEIVE}' then '{FAX}' else r.kind end kind
                from log_leaf s join access_record r on r.id = s.record
                where s.document = known.id and d.id is null and f.id is null
                    and s.action in ('{Action.DOCUMENT_INGEST}', '{Action.FAX_RECEIVE}')
                order by s.index limit 1) said on true
        where known.id is not null)
    select id document, order_id "order", kind,
        case
            when custody = 'stored' and not has_key and left_at is not null then 'left'
            when custody = 'stored' and not has_key then 'lost'
            when custody = 'stored' and not has_object then 'missing'
            when recovered_at is not null and custody = 'stored' then 'recovered'
            when custody = 'stored' then 'living'
            when custody is not null then custody
            when was_shredded then 'shredded'
            when left_at is not null then 'left'
            when has_key then 'unknown'
            else 'lost'
        end state,
        case
            when custody = 'stored' and not has_key then coalesce('a restore left it behind on '
                || to_char(left_at at time zone 'UTC', 'YYYY-MM-DD') || '; ', '') || no_key
            when custody = 'stored' and not has_object then 'its object is not in the bucket'
            when recovered_at is not null and custody = 'stored' and kind <> '{FAX}' then 'stored '
                'after the backup: it is here again, but its file name is not known'
            when custody = 'shredded' then shred_reason
            when custody is not null then null
            when was_shredded then 'stored and shredded after the backup'
            when left_at is not null then 'a restore left it behind on '
                || to_char(left_at at time zone 'UTC', 'YYYY-MM-DD')
            when has_key then 'stored after the backup: its key is kept, and its object'
                || case when has_object then '' else ' is missing' end
            else 'stored after the backup and after the last copy of the tree: only a later '
                'backup, or WAL, has its key'
        end detail
    from found order by 4, 1
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One document, or one key without a row: where it stands after the restore, and why."""

    document: UUID
    order: UUID | None
    kind: str | None
    state: str
    detail: str | None


async def is_alone(conn: Connection) -> bool:
    """Whether no server or worker uses this database; those who come have to wait."""
    alone: bool = await conn.fetchval("select pg_try_advisory_lock($1)", SERVING)
    return alone


async def let_others_in(conn: Connection) -> None:
    """End what `is_alone` began."""
    await conn.execute("select pg_advisory_unlock($1)", SERVING)


async def shredded_by_log(conn: Connection, region: str) -> list[UUID]:
    """Return documents and orders that still have a key, and whose end is recorded."""
    rows = await conn.fetch(
        f"""
        select k.id from data_key k left join document d on d.id = k.id
            left join fax f on f.id = k.id
        where k.region = $1 and (
            coalesce(d.custody, f.custody) in ('shredded', 'sealed') or exists (
            select from access_record r where r.document = k.id and r.action in {SHREDS}
                and r.phase = 'outcome' and r.result = 'completed' and r.reason is null) or exists (
            select from access_record r where r."order" = k.id
                and r.action = '{Action.ORDER_FORGET}'
                and r.phase = 'outcome' and r.result = 'completed' and r.reason is null))
        """,
        region,
    )
    return [row["id"] for row in rows]


async def unknown_index_keys(conn: Connection, region: str) -> list[UUID]:
    """Return keys of the index of numbers that were made after the backup: nothing needs them."""
    rows = await conn.fetch(
        """
        select id from data_key k where region = $1 and id = scope
            and substr(id::text, 15, 1) = '8'
            and not exists (select from number_index_key n where n.id = k.id)
        """,
        region,
    )
    return [row["id"] for row in rows]


async def note_anew(conn: Connection, region: str, generation: int) -> None:
    """Have every shred that is not sealed wait for the generation of now: others may know it."""
    for table in ("document", "fax"):
        await conn.execute(
            f"""
            update {table} set last_generation = greatest(last_generation, $2)
            where region = $1 and custody = 'shredded'
            """,
            region,
            generation,
        )


async def shred_without_key(
    conn: Connection, region: str, generation: int, now: datetime
) -> list[UUID]:
    """
    Mark stored documents shredded that have no key, where the log or the tree says they were.

    A key that is only missing is no shred: the generation that it hung on may have died.
    """
    rows = await conn.fetch(
        f"""
        with gone as (
        update document d set custody = 'shredded', metadata = null, last_generation = $2,
            shredded_at = coalesce(r.at, $3), shredded_by = coalesce(r.principal, 'unknown'),
            shred_reason = 'shredded after the backup that was restored',
            shred_ground = r.ground, not_known = coalesce(d.not_known, '{{}}')
                || '{{shred_reason, policy, replaced_by}}'
        from document s left join (
            select distinct on (o.document) o.document, o.at, o.principal,
                coalesce(i.basis, case i.reason when 'retention' then i.reason end) ground
            from access_record o left join access_record i on i.id = o.intent
            where o.region = $1 and o.action = '{Action.DOCUMENT_SHRED}' and o.phase = 'outcome'
                and o.result = 'completed' and o.reason is null
            order by o.document, o.at) r on r.document = s.id
        where s.region = $1 and s.custody = 'stored' and d.id = s.id
            and not exists (select from data_key k where k.id = s.id)
            and (r.at is not null
                or exists (select from key_gone g where g.region = $1 and g.id = s.id))
        returning d.id),
        forgotten as (
            update idempotency set fingerprint = null where resource in (select id from gone))
        select id from gone
        """,
        region,
        generation,
        now,
    )
    return [row["id"] for row in rows]


async def end_faxes_without_key(
    conn: Connection, region: str, generation: int, now: datetime
) -> None:
    """Bring faxes to their end that have no key, as the log says; where only the tree: expired."""
    await conn.execute(
        f"""
        update fax f set custody = 'shredded', metadata = null, fingerprint = null,
            last_generation = $2, ended_at = coalesce(r.at, $3), state = case r.action
                when '{Action.FAX_DELIVER}' then 'delivered' when '{Action.FAX_FAIL}' then 'failed'
                else 'expired' end
        from fax s left join (
            select distinct on (document) document, at, action from access_record
            where region = $1 and action in {SHREDS} and phase = 'outcome'
                and result = 'completed' and reason is null
            order by document, at) r on r.document = s.id
        where s.region = $1 and s.custody = 'stored' and f.id = s.id
            and not exists (select from data_key k where k.id = s.id)
            and (r.at is not null
                or exists (select from key_gone g where g.region = $1 and g.id = s.id))
        """,
        region,
        generation,
        now,
    )


async def set_left(conn: Connection, region: str, now: datetime) -> None:
    """Say of what has a row and no key that it is left behind, and of what is here again not."""
    for table in ("document", "fax"):
        await conn.execute(
            f"""
            update {table} t set left_at = case when k.id is null then $2::timestamptz end
            from {table} s left join data_key k on k.id = s.id
            where s.region = $1 and s.custody = 'stored' and t.id = s.id
                and (s.left_at is null) = (k.id is null)
            """,
            region,
            now,
        )


async def keep_objects(conn: Connection, found: Sequence[tuple[str, int]], *, first: bool) -> None:
    """Keep names and sizes of the bucket's objects for `lines`, until the transaction ends."""
    if first:
        await conn.execute(
            "create temporary table found_object (id text, size_bytes bigint) on commit drop"
        )
    await conn.copy_records_to_table("found_object", records=found)


async def index_objects(conn: Connection) -> None:
    """Have what was kept found by its name."""
    await conn.execute("create index on found_object (id)")


async def lines(conn: Connection, region: str, prefix: str) -> list[Line]:
    """Return where every document stands; `keep_objects` came before."""
    rows = await conn.fetch(_LINES, region, prefix)
    return [Line(**dict(row)) for row in rows]


async def unknown_objects(conn: Connection, prefix: str, documents: Sequence[UUID]) -> int:
    """Return how many of the objects are of none of these, and of no upload that has a row."""
    count: int = await conn.fetchval(
        """
        select count(*) from found_object o
        where not exists (select from unnest($2::uuid[]) known (id)
                          where o.id = $1 || known.id::text)
            and not exists (select from document d where o.id = $1 || d.id::text)
        """,
        prefix,
        list(documents),
    )
    return count


async def forget_receiving(conn: Connection, documents: Sequence[UUID]) -> None:
    """Drop the rows of uploads that did end, so that nobody sweeps up what they brought."""
    await conn.execute(
        "delete from document where id = any($1) and custody = 'receiving'", list(documents)
    )


# ---- The statements that fill an empty database with the rows of a dump, table by table, as data.


async def tables(conn: Connection) -> Mapping[str, frozenset[str]]:
    """Return the tables of the schema but that of migrations, each with its columns."""
    rows = await conn.fetch(
        """
        select c.relname "table", array_agg(a.attname::text) columns
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
            and c.relname <> 'migration' and a.attnum > 0
            and not a.attisdropped and a.attgenerated = ''
        group by c.relname
        """
    )
    return {row["table"]: frozenset(row["columns"]) for row in rows}


async def in_order(conn: Connection, names: Iterable[str]) -> list[str]:
    """Return tables in an order in which each comes after those that it refers to."""
    rows = await conn.fetch(
        """
        select conrelid::regclass::text "from", confrelid::regclass::text "to"
        from pg_constraint where contype = 'f' and conrelid <> confrelid
            and connamespace = 'public'::regnamespace
        """
    )
    waiting, placed = set(names), list[str]()
    needed = {name: {row["to"] for row in rows if row["from"] == name} for name in waiting}
    while waiting:
        free = sorted(name for name in waiting if not needed[name] & waiting)
        placed += free or sorted(waiting)
        waiting -= set(placed)
    return placed


async def begin_loading(conn: Connection, names: Sequence[str]) -> None:
    """Empty the tables and keep their triggers still, until `end`; for the owner only."""
    await conn.execute("set constraints all deferred")
    for name in names:
        await conn.execute(f'alter table "{name}" disable trigger user')
    await conn.execute("truncate " + ", ".join(f'"{name}"' for name in names))


async def copy_rows(
    conn: Connection, table: str, columns: Sequence[str], rows: AsyncIterator[bytes]
) -> None:
    """Add rows in the text form of COPY; both names come from `tables`."""
    await conn.copy_to_table(table, source=rows, columns=columns, format="text", timeout=None)


async def end_loading(conn: Connection, names: Sequence[str], sequences: Mapping[str, int]) -> None:
    """Go on with the sequences where the dump was, and let triggers act again."""
    known = await conn.fetch(
        "select relname from pg_class where relkind = 'S' and relnamespace = 'public'::regnamespace"
    )
    for name in {row["relname"] for row in known} & set(sequences):
        await conn.execute("select setval($1::text::regclass, $2)", name, sequences[name])
    # A table whose rows are yet to be compared with another's cannot be altered.
    await conn.execute("set constraints all immediate")
    for name in names:
        await conn.execute(f'alter table "{name}" enable trigger user')
