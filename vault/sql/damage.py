"""What was found damaged at rest, how far the look is, and what it looks at next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.damage import Damage
from keys.data_keys import COLUMNS_OF_THING, with_data_key, wrapped_key_if_any
from keys.keyring import WrappedKey
from vault.domain.access import Action
from vault.domain.faxes import Fax
from vault.domain.orders import Mark
from vault.sql import faxes as faxes_sql
from vault.sql.connection import Connection
from vault.sql.restore import SHREDS

_DAMAGE = """region, detail, "table", id, "column", object, segment"""


@dataclass(frozen=True, slots=True)
class Look:
    """How far the look at a region is: what of which part was looked at last, and since when."""

    part: str
    after: str | None
    began_at: datetime
    ended_at: datetime | None
    #: When everything had last been looked at, by this look or one before.
    whole_at: datetime | None = None


async def look_of(conn: Connection, region: str) -> Look | None:
    """Return how far the look is, None before the first."""
    row = await conn.fetchrow(
        "select part, after, began_at, ended_at, whole_at from damage_look where region = $1",
        region,
    )
    return Look(**dict(row)) if row else None


async def set_look(conn: Connection, region: str, look: Look) -> None:
    """Say how far the look is."""
    await conn.execute(
        """
        insert into damage_look (region, part, after, began_at, ended_at, whole_at)
        values ($1, $2, $3, $4, $5, $5)
        on conflict (region) do update set part = excluded.part, after = excluded.after,
            began_at = excluded.began_at, ended_at = excluded.ended_at,
            whole_at = coalesce(excluded.ended_at, damage_look.whole_at)
        """,
        region,
        look.part,
        look.after,
        look.began_at,
        look.ended_at,
    )


async def forget_look(conn: Connection, region: str) -> None:
    """Have the look begin anew: what it looked at was another state."""
    await conn.execute("delete from damage_look where region = $1", region)


async def note(conn: Connection, damages: Sequence[Damage], now: datetime) -> None:
    """Keep what was found, or say that it was seen again."""
    for item in damages:
        await conn.execute(
            f"""
            insert into damage (place, {_DAMAGE}, found_at, seen_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
            on conflict (region, place) do update set detail = excluded.detail, seen_at = $9
            """,
            item.place,
            item.region,
            item.detail,
            item.table,
            item.id,
            item.column,
            item.object,
            item.segment,
            now,
        )


async def forget_before(conn: Connection, region: str, began_at: datetime) -> None:
    """Forget what a whole look since then has not seen any more."""
    await conn.execute("delete from damage where region = $1 and seen_at < $2", region, began_at)


async def known(conn: Connection, region: str, limit: int) -> tuple[int, list[Damage]]:
    """Return how much is known to be damaged, and the first of it."""
    count = await conn.fetchval("select count(*) from damage where region = $1", region)
    rows = await conn.fetch(
        f"select {_DAMAGE} from damage where region = $1 order by found_at, place limit $2",
        region,
        limit,
    )
    return count, [Damage(**dict(row)) for row in rows]


async def counts(conn: Connection) -> dict[str, int]:
    """Return how much is known to be damaged, of each region that has any."""
    rows = await conn.fetch("select region, count(*) from damage group by region")
    return {row["region"]: row["count"] for row in rows}


async def shredded(conn: Connection, things: Sequence[UUID]) -> set[UUID]:
    """Return those whose row, or whose record in the log, says that they were shredded."""
    rows = await conn.fetch(
        f"""
        select t.id from unnest($1::uuid[]) t (id) where
            exists (select from document d
                where d.id = t.id and d.custody in ('shredded', 'sealed'))
            or exists (select from fax f where f.id = t.id and f.custody <> 'stored')
            or exists (select from porting_order o
                where o.id = t.id and o.details_gone_at is not null)
            or exists (select from access_record r where r.document = t.id
                and r.action in {SHREDS} and r.phase = 'outcome'
                and r.result = 'completed' and r.reason is null)
            or exists (select from access_record r where r."order" = t.id
                and r.action = '{Action.ORDER_FORGET}' and r.phase = 'outcome'
                and r.result = 'completed' and r.reason is null)
        """,
        list(things),
    )
    return {row["id"] for row in rows}


async def next_documents(
    conn: Connection, region: str, after: UUID | None, limit: int
) -> list[UUID]:
    """Return documents in custody, by their ids."""
    rows = await conn.fetch(
        """
        select id from document where region = $1 and custody = 'stored' and left_at is null
            and ($2::uuid is null or id > $2) order by id limit $3
        """,
        region,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def next_faxes(conn: Connection, region: str, after: UUID | None, limit: int) -> list[UUID]:
    """Return faxes in custody, by their ids."""
    rows = await conn.fetch(
        """
        select id from fax where region = $1 and custody = 'stored' and left_at is null
            and ($2::uuid is null or id > $2) order by id limit $3
        """,
        region,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def next_orders(conn: Connection, region: str, after: UUID | None, limit: int) -> list[UUID]:
    """Return orders that have details, by their ids."""
    rows = await conn.fetch(
        """
        select id from porting_order where region = $1 and details is not null
            and ($2::uuid is null or id > $2) order by id limit $3
        """,
        region,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def fax_with_key(conn: Connection, fax: UUID) -> tuple[Fax | None, WrappedKey | None]:
    """Return a fax and its wrapped key, of one moment."""
    row = await conn.fetchrow(
        f"""
        select {faxes_sql.COLUMNS}, {COLUMNS_OF_THING}
        from fax f {with_data_key("f.id")} where f.id = $1
        """,
        fax,
    )
    if row is None:
        return None, None
    return faxes_sql.fax_of(row), wrapped_key_if_any(row)


async def marks_of(conn: Connection, order: UUID) -> list[tuple[UUID | None, Mark]]:
    """Return what stands in the index for an order, each with the key it is under."""
    rows = await conn.fetch(
        'select key, mac, reference from number_index where "order" = $1', order
    )
    return [(row["key"], Mark(row["mac"] or b"", row["reference"])) for row in rows]


async def index_anew(conn: Connection, order: UUID, numbers: int) -> None:
    """Have the worker index an order anew."""
    await conn.execute(
        """
        with gone as (delete from number_index where "order" = $1)
        insert into number_index (region, "order")
        select o.region, o.id from porting_order o, generate_series(1, $2) where o.id = $1
        """,
        order,
        numbers,
    )


async def set_stream_header(conn: Connection, table: str, thing: UUID, header: bytes) -> None:
    """Say of a document or a fax in custody what its object begins with."""
    if table not in {"document", "fax"}:
        raise ValueError(table)
    await conn.execute(
        f"update {table} set stream_header = $2 where id = $1 and custody = 'stored'",
        thing,
        header,
    )


async def set_encrypted(
    conn: Connection, table: str, column: str, identity: UUID, value: bytes
) -> None:
    """Put an encrypted value back into the row of what was not shredded."""
    living = {"document": "custody = 'stored'", "fax": "custody = 'stored'"}
    if (table, column) not in {
        ("document", "metadata"),
        ("fax", "metadata"),
        ("porting_order", "details"),
    }:
        raise ValueError(table)
    condition = living.get(table, "details is not null")
    await conn.execute(
        f"update {table} set {column} = $2 where id = $1 and {condition}", identity, value
    )


async def has_changed(
    conn: Connection, table: str, identity: UUID, row: Mapping[str, bytes]
) -> bool:
    """Whether an order's row says another time of change than a backup's; others do not change."""
    if table != "porting_order":
        return False
    same: bool | None = await conn.fetchval(
        "select changed_at = $2::text::timestamptz from porting_order where id = $1",
        identity,
        row.get("changed_at", b"").decode(errors="replace") or "-infinity",
    )
    return not same
