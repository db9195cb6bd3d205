"""What was said of orders, and what carriers call them."""

from datetime import datetime
from uuid import UUID

from vault.domain.orders import OrderEvent, Status
from vault.sql.connection import Connection


async def insert(conn: Connection, order: UUID, event: OrderEvent, now: datetime) -> bool:
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


async def of_order(conn: Connection, order: UUID) -> list[OrderEvent]:
    """Return all that was said of an order."""
    rows = await conn.fetch(
        "select source, event, status, occurred_at from order_event where order_id = $1", order
    )
    return [
        OrderEvent(row["source"], row["event"], Status(row["status"]), row["occurred_at"])
        for row in rows
    ]


async def link(conn: Connection, carrier: str, reference: str, order: UUID) -> bool:
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
