"""Porting orders."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from keys import data_keys
from keys.keyring import WrappedKey
from vault.domain.orders import END_NOT_KNOWN, Order, OrderEvent, Status
from vault.sql.connection import Connection

_COLUMNS = """
    id, region, customer, status, details, created_at, changed_at, ended_at, details_gone_at,
    recovered_at, not_known
"""


def _order(row: asyncpg.Record) -> Order:
    fields = dict(row)
    fields["status"] = Status(fields["status"])
    return Order(**fields)


async def insert(conn: Connection, order: Order) -> None:
    """Add an order; its scope and the key of its details must be in the same transaction."""
    await conn.execute(
        """
        insert into porting_order (id, region, customer, status, details, created_at, changed_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        order.id,
        order.region,
        order.customer,
        order.status.value,
        order.details,
        order.created_at,
        order.changed_at,
    )


async def find(conn: Connection, order: UUID, *, lock: bool = False) -> Order | None:
    """Return the order; with `lock`, nobody else changes it until the transaction ends."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from porting_order where id = $1" + (" for update" if lock else ""),
        order,
    )
    return _order(row) if row else None


async def customer_of(conn: Connection, order: UUID) -> str | None:
    """Return whose order it is; None when there is none."""
    found: str | None = await conn.fetchval(
        "select customer from porting_order where id = $1", order
    )
    return found


async def details_key(conn: Connection, order: UUID) -> WrappedKey | None:
    """Return the wrapped key of the order's details."""
    return await data_keys.find(conn, order)


async def page(
    conn: Connection,
    regions: list[str],
    customers: list[str] | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
    *,
    among: Sequence[UUID] | None = None,
    status: Status | None = None,
    customer: str | None = None,
    due_before: datetime | None = None,
) -> list[Order]:
    """Return orders of the regions and customers, newest first, that come after the cursor."""
    at, identity = before or (None, None)
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from porting_order
        where region = any($1) and ($2::timestamptz is null or (created_at, id) < ($2, $3))
            and ($5::text[] is null or customer = any($5))
            and ($6::uuid[] is null or id = any($6))
            and ($7::text is null or status = $7) and ($8::text is null or customer = $8)
            and ($9::timestamptz is null or id in (
                select order_id from document
                where region = any($1) and custody = 'stored' and due_at < $9))
        order by created_at desc, id desc limit $4
        """,
        regions,
        at,
        identity,
        limit,
        customers,
        among if among is None else list(among),
        status,
        customer,
        due_before,
    )
    return [_order(row) for row in rows]


async def set_details(
    conn: Connection, order: UUID, encrypted: bytes, known: Sequence[str] = ()
) -> None:
    """Replace the encrypted details of an order; what is said of it now is known again."""
    await conn.execute(
        """
        update porting_order set details = $2, not_known = array(
            select name from unnest(not_known) with ordinality n (name, place)
            where name <> all($3) order by place)
        where id = $1
        """,
        order,
        encrypted,
        list(known),
    )


async def set_customer(conn: Connection, order: UUID, customer: str) -> None:
    """Say whose an order is."""
    await conn.execute("update porting_order set customer = $2 where id = $1", order, customer)


async def set_status(
    conn: Connection,
    order: UUID,
    status: Status,
    now: datetime,
    ended_at: datetime | None,
) -> None:
    """
    Move the order along the carrier's axis; `ended_at` is None while it is open.

    An end that a restore could not tell is known by an end that is said now.
    """
    await conn.execute(
        f"""
        update porting_order set status = $2, changed_at = $3, ended_at = $4, not_known = case
            when $4::timestamptz is null then not_known
            else array_remove(not_known, '{END_NOT_KNOWN}') end
        where id = $1
        """,
        order,
        status.value,
        now,
        ended_at,
    )


async def set_end_not_known(conn: Connection, order: UUID, now: datetime) -> None:
    """Note that the order may have ended, and that a restore could not tell when."""
    await conn.execute(
        """
        update porting_order set recovered_at = coalesce(recovered_at, $3),
            not_known = array_append(array_remove(not_known, $2), $2)
        where id = $1
        """,
        order,
        END_NOT_KNOWN,
        now,
    )


async def count_end_not_known(conn: Connection, region: str) -> int:
    """Return how many orders are open of which nobody knows whether they have ended."""
    found: int = await conn.fetchval(
        """
        select count(*) from porting_order
        where region = $1 and recovered_at is not null and ended_at is null
            and $2 = any(not_known)
        """,
        region,
        END_NOT_KNOWN,
    )
    return found


# ---- What was said of orders, and what carriers call them. --------------------------------------


async def insert_event(conn: Connection, order: UUID, event: OrderEvent, now: datetime) -> bool:
    """Keep an event; False when it came before."""
    done = await conn.execute(
        """
        insert into order_event (source, event, order_id, status, occurred_at, received_at)
        values ($1, $2, $3, $4, $5, $6) on conflict do nothing
        """,
        event.source,
        event.event,
        order,
        event.status.value,
        event.occurred_at,
        now,
    )
    return done == "INSERT 0 1"


async def events_of_order(conn: Connection, order: UUID) -> list[OrderEvent]:
    """Return all that was said of an order."""
    rows = await conn.fetch(
        "select source, event, status, occurred_at from order_event where order_id = $1", order
    )
    return [
        OrderEvent(row["source"], row["event"], Status(row["status"]), row["occurred_at"])
        for row in rows
    ]


async def link_carrier(conn: Connection, carrier: str, reference: str, order: UUID) -> bool:
    """Note what a carrier calls an order; False when it calls another one so."""
    await conn.execute(
        """
        insert into carrier_order (carrier, reference, order_id) values ($1, $2, $3)
        on conflict do nothing
        """,
        carrier,
        reference,
        order,
    )
    return await linked(conn, carrier, reference) == order


async def carriers_of(conn: Connection, order: UUID) -> frozenset[str] | None:
    """Return the carriers that an order is linked to; None where there is no such order."""
    found: list[str] | None = await conn.fetchval(
        """
        select array(select carrier from carrier_order c where c.order_id = o.id)
        from porting_order o where o.id = $1
        """,
        order,
    )
    return None if found is None else frozenset(found)


async def linked(conn: Connection, carrier: str, reference: str) -> UUID | None:
    """Return the order that a carrier calls so."""
    found: UUID | None = await conn.fetchval(
        "select order_id from carrier_order where carrier = $1 and reference = $2",
        carrier,
        reference,
    )
    return found
