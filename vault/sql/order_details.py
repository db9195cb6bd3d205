"""Orders whose sealed details are to go, and which of them are to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.data_keys import COLUMNS_OF_THING, with_data_key, wrapped_key_if_any
from keys.keyring import WrappedKey
from vault.domain.access import Action
from vault.domain.orders import Mark, Status
from vault.domain.retention import ORDER_DETAILS, Event, Facts
from vault.sql.connection import Connection
from vault.sql.holds import covering_order, of_customers

_HELD = covering_order("o.id", "o.region", "o.customer")


async def look(conn: Connection, orders: Sequence[UUID]) -> None:
    """Have the worker look at orders that have ended: something changed of them."""
    await conn.execute(
        """
        insert into order_look (region, order_id) select region, id from porting_order
        where id = any($1) and ended_at is not null and details is not null
        """,
        list(orders),
    )


async def look_at_customers(conn: Connection, region: str, customers: Sequence[str]) -> None:
    """Do the same for all orders of customers in a region."""
    await conn.execute(
        f"""
        insert into order_look (region, order_id) select region, id from porting_order
        where region = $1 and {of_customers("customer", "$2::text[]")} and ended_at is not null
            and details is not null
        """,
        region,
        list(customers),
    )


async def look_later(
    conn: Connection, region: str, orders: Sequence[UUID], times: Sequence[datetime]
) -> None:
    """Have the worker look at orders when their time has come."""
    await conn.execute(
        """
        insert into order_look (region, order_id, look_at)
        select $1, * from unnest($2::uuid[], $3::timestamptz[])
        """,
        region,
        list(orders),
        list(times),
    )


async def take_looks(conn: Connection, region: str, now: datetime, limit: int) -> list[UUID]:
    """Return orders to look at; they are not returned again if the transaction commits."""
    rows = await conn.fetch(
        """
        with taken as (
            delete from order_look where ctid = any(array(
                select ctid from order_look where region = $1 and look_at <= $2
                order by look_at limit $3 for update skip locked))
            returning order_id)
        select distinct order_id from taken
        """,
        region,
        now,
        limit,
    )
    return [row["order_id"] for row in rows]


async def lock_without_documents(conn: Connection, orders: Sequence[UUID]) -> dict[UUID, Facts]:
    """Return what to judge details by, of orders that have ended and have no document, locked."""
    # What hangs on the orders is read by a statement of its own: it sees what this one waited for.
    rows = await conn.fetch(
        """
        select id from porting_order
        where id = any($1) and ended_at is not null and details is not null
        order by id for update
        """,
        list(orders),
    )
    rows = await conn.fetch(
        f"""
        select o.id, o.region, o.status, o.ended_at, o.changed_at, array(
            select t.hold from hold_target t where {_HELD}) holds
        from porting_order o where o.id = any($1) and not exists (
            select from document d
            where d.order_id = o.id and d.custody in ('receiving', 'stored'))
        """,
        [row["id"] for row in rows],
    )
    return {
        row["id"]: Facts(
            kind=ORDER_DETAILS,
            region=row["region"],
            event=Event(Status(row["status"]).value),
            started_at=row["ended_at"],
            learned_at=row["changed_at"],
            holds=tuple(row["holds"]),
        )
        for row in rows
    }


async def set_gone(conn: Connection, orders: Sequence[UUID], now: datetime) -> None:
    """Take the details away, and the orders out of the index; their keys go with them."""
    await conn.execute(
        """
        with found_no_more as (delete from number_index where "order" = any($1)),
        forgotten as (delete from idempotency where resource = any($1))
        update porting_order set details = null, details_gone_at = $2 where id = any($1)
        """,
        list(orders),
        now,
    )


async def set_gone_without_key(conn: Connection, region: str, now: datetime) -> None:
    """Say of details that have no key any more, after a restore, that they are gone, or lost."""
    rows = await conn.fetch(
        f"""
        select id, exists (select from key_gone g where g.region = $1 and g.id = o.id)
            or exists (select from access_record r where r."order" = o.id
                and r.action = '{Action.ORDER_FORGET}' and r.phase = 'outcome'
                and r.result = 'completed' and r.reason is null) forgotten
        from porting_order o where region = $1 and details is not null
            and not exists (select from data_key k where k.id = o.id)
        """,
        region,
    )
    await set_gone(conn, [row["id"] for row in rows], now)
    await conn.execute(
        """
        update porting_order set recovered_at = coalesce(recovered_at, $2),
            not_known = coalesce(not_known, '{}') || '{details}'
        where id = any($1)
        """,
        [row["id"] for row in rows if not row["forgotten"]],
        now,
    )


# ---- The keyed index of telephone numbers and references, and the keys it stands under. ---------


@dataclass(frozen=True, slots=True)
class IndexKey:
    """A key of the index; `wrapped` is None when the tree does not have it any more."""

    id: UUID
    created_at: datetime
    retired_at: datetime | None
    wrapped: WrappedKey | None


def _index_key(row: asyncpg.Record) -> IndexKey:
    return IndexKey(row["id"], row["created_at"], row["retired_at"], wrapped_key_if_any(row))


async def index_keys(conn: Connection, region: str) -> list[IndexKey]:
    """Return a region's keys, the present one first."""
    rows = await conn.fetch(
        f"""
        select n.id, n.region, created_at, retired_at, {COLUMNS_OF_THING}
        from number_index_key n {with_data_key("n.id")}
        where n.region = $1 order by retired_at desc nulls first
        """,
        region,
    )
    return [_index_key(row) for row in rows]


async def replace_key(
    conn: Connection, region: str, old: UUID | None, new: UUID, now: datetime
) -> None:
    """Make the new key the present one; a unique violation when another one has become it."""
    await conn.execute(
        "update number_index_key set retired_at = $2 where id = $1 and retired_at is null",
        old,
        now,
    )
    await conn.execute(
        "insert into number_index_key (id, region, created_at) values ($1, $2, $3)",
        new,
        region,
        now,
    )


async def insert_numbers(
    conn: Connection, region: str, key: UUID, order: UUID, marks: Sequence[Mark]
) -> bool:
    """Index an order; False when the key is not the present one any more, and nothing was done."""
    done = await conn.execute(
        """
        with present as (
            select from number_index_key where id = $2 and retired_at is null for share)
        insert into number_index (region, key, mac, "order", reference)
        select $1, $2, mac, $3, reference
        from present, unnest($4::bytea[], $5::boolean[]) mark (mac, reference)
        """,
        region,
        key,
        order,
        [mark.mac for mark in marks],
        [mark.reference for mark in marks],
    )
    return done != "INSERT 0 0"


async def move_numbers(
    conn: Connection, region: str, key: UUID, order: UUID, marks: Sequence[Mark]
) -> None:
    """Have an order that waits stand under this key only, if the key is present."""
    await conn.execute(
        """
        with present as (
            select from number_index_key where id = $2 and retired_at is null for share),
        gone as (
            delete from number_index where "order" = $3 and exists (select from present)
                and exists (
                    select from number_index where "order" = $3 and key is distinct from $2)
            returning "order")
        insert into number_index (region, key, mac, "order", reference)
        select $1, $2, mac, $3, reference
        from unnest($4::bytea[], $5::boolean[]) mark (mac, reference)
        where exists (select from gone)
        """,
        region,
        key,
        order,
        [mark.mac for mark in marks],
        [mark.reference for mark in marks],
    )


async def waiting_numbers(
    conn: Connection, region: str, retired: Sequence[UUID], limit: int
) -> list[UUID]:
    """Return orders that stand under no key, or under a retired one."""
    rows = await conn.fetch(
        """
        select distinct "order" from (
            (select "order" from number_index where region = $1 and key is null limit $3)
            union all
            (select "order" from number_index where region = $1 and key = any($2) limit $3)) found
        """,
        region,
        list(retired),
        limit,
    )
    return [row["order"] for row in rows]


async def orders_of(
    conn: Connection, region: str, keys: Sequence[UUID], macs: Sequence[bytes]
) -> list[UUID]:
    """Return the orders that one of the MACs, each under its key, stands for."""
    rows = await conn.fetch(
        """
        select distinct "order" from number_index
        where region = $1 and (key, mac) in (select * from unnest($2::uuid[], $3::bytea[]))
        """,
        region,
        list(keys),
        list(macs),
    )
    return [row["order"] for row in rows]


async def count_numbers(conn: Connection, order: UUID) -> int:
    """Return how many numbers an order moves, as long as it is in the index."""
    count: int = await conn.fetchval(
        'select count(*) from number_index where "order" = $1 and not reference', order
    )
    return count


async def forget_orders(conn: Connection, orders: Sequence[UUID]) -> None:
    """Take orders out of the index."""
    await conn.execute('delete from number_index where "order" = any($1)', list(orders))


async def forget_key(conn: Connection, key: UUID) -> None:
    """Delete a retired key and what still stands under it."""
    await conn.execute("delete from number_index where key = $1", key)
    await conn.execute("delete from number_index_key where id = $1", key)
