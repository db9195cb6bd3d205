"""Holds, and what they cover."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.holds import EVERY_CUSTOMER, Hold, Restriction, Targets
from vault.domain.orders import UNKNOWN_CUSTOMER
from vault.sql.connection import Connection

# ---- What a hold covers, as a condition of SQL: the one place that says so. ---------------------
#
# Two words stand where a customer's id stands, and are none: a restore writes them. A hold of
# which nobody knows what it covers has `EVERY_CUSTOMER`, and keeps all of its region. An order of
# which nobody knows whose it is has `UNKNOWN_CUSTOMER`, and every hold on a customer of its region
# keeps it.


def covering_order(order: str, region: str, customer: str) -> str:
    """Return the condition that a living target `t` covers an order, named by its columns."""
    return f"""(not t.released and (t.order_id = {order} or (t.region = {region} and (
        t.customer = any(array[{customer}, '{EVERY_CUSTOMER}'])
        or ({customer} = '{UNKNOWN_CUSTOMER}' and t.customer is not null)))))"""


def covering_document(document: str, order: str, region: str, customer: str) -> str:
    """Return the condition that it covers a document of an order."""
    whole = covering_order(order, region, customer)
    return f"((not t.released and t.document = {document}) or {whole})"


def of_customers(customer: str, customers: str) -> str:
    """Return the condition that a hold on one of some customers covers this customer's orders."""
    return f"""({customer} = any({customers}) or {customer} = '{UNKNOWN_CUSTOMER}'
        or '{EVERY_CUSTOMER}' = any({customers}))"""


# ---- Holds. -------------------------------------------------------------------------------------

_NAMES = tuple(Hold.__dataclass_fields__)
_COLUMNS = ", ".join(_NAMES)


async def insert(conn: Connection, hold: Hold, targets: Targets) -> None:
    """Place a hold; `retention.change_holds` came before."""
    await conn.execute(
        """
        insert into hold
            (id, region, reason, authority, reference, placed_by, placed_at, recovered_at,
                not_known)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        hold.id,
        hold.region,
        hold.reason,
        hold.authority,
        hold.reference,
        hold.placed_by,
        hold.placed_at,
        hold.recovered_at,
        hold.not_known,
    )
    await conn.execute(
        """
        insert into hold_target (hold, region, document, order_id, customer)
        select $1::uuid, $2::text, t.document, t.order_id, t.customer from (
            select document, null::uuid order_id, null::text customer
                from unnest($3::uuid[]) document
            union select null, order_id, null from unnest($4::uuid[]) order_id
            union select null, null, customer from unnest($5::text[]) customer) t
        """,
        hold.id,
        hold.region,
        list(targets.documents),
        list(targets.orders),
        list(targets.customers),
    )


async def find(conn: Connection, hold: UUID, *, lock: bool = False) -> Hold | None:
    """Return a hold; with `lock`, nobody else releases it until the transaction ends."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from hold where id = $1" + (" for update" if lock else ""), hold
    )
    return Hold(**dict(row)) if row else None


async def find_many(conn: Connection, holds: Iterable[UUID]) -> list[Hold]:
    """Return holds by their ids, the oldest first."""
    wanted = list(holds)
    if not wanted:
        return []
    rows = await conn.fetch(
        f"select {_COLUMNS} from hold where id = any($1) order by placed_at, id", wanted
    )
    return [Hold(**dict(row)) for row in rows]


async def targets(conn: Connection, hold: UUID) -> Targets:
    """Return what a hold covers, or covered."""
    rows = await conn.fetch(
        "select document, order_id, customer from hold_target where hold = $1", hold
    )
    return Targets(
        tuple(row["document"] for row in rows if row["document"]),
        tuple(row["order_id"] for row in rows if row["order_id"]),
        tuple(row["customer"] for row in rows if row["customer"]),
    )


async def page(
    conn: Connection,
    regions: Sequence[str],
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Hold]:
    """Return holds of regions, newest first, that come after the cursor."""
    at, identity = before or (None, None)
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from hold
        where region = any($1) and ($2::timestamptz is null or (placed_at, id) < ($2, $3))
        order by placed_at desc, id desc limit $4
        """,
        list(regions),
        at,
        identity,
        limit,
    )
    return [Hold(**dict(row)) for row in rows]


async def release(
    conn: Connection, hold: UUID, *, by: str, reason: str, approved_by: str | None, now: datetime
) -> None:
    """Release a hold and all that it covers."""
    await conn.execute(
        """
        update hold set released_by = $2, release_reason = $3, approved_by = $4, released_at = $5
        where id = $1
        """,
        hold,
        by,
        reason,
        approved_by,
        now,
    )
    await conn.execute("update hold_target set released = true where hold = $1", hold)


async def holds_order(conn: Connection, order: UUID) -> bool:
    """Whether a hold keeps an order, its customer or any of its documents."""
    found: bool = await conn.fetchval(
        f"""
        select exists (
            select from hold_target t join porting_order o on o.id = $1
            where {covering_order("o.id", "o.region", "o.customer")}
                or (not t.released
                    and t.document in (select d.id from document d where d.order_id = o.id)))
        """,
        order,
    )
    return found


async def keep_under(conn: Connection, order: UUID, region: str, customer: str) -> None:
    """Keep an order of an unknown customer under the holds on others, as it is to be another's."""
    await conn.execute(
        """
        insert into hold_target (hold, region, order_id)
        select distinct t.hold, t.region, $1::uuid from hold_target t
        where not t.released and t.region = $2 and t.customer <> all(array[$3, $4])
            and exists (select from porting_order o where o.id = $1 and o.customer = $5)
        """,
        order,
        region,
        customer,
        EVERY_CUSTOMER,
        UNKNOWN_CUSTOMER,
    )


async def shredded_among(conn: Connection, documents: Sequence[UUID]) -> list[UUID]:
    """Return which of some documents are shredded already."""
    rows = await conn.fetch(
        "select id from document where id = any($1) and shredded_at is not null",
        list(documents),
    )
    return [row["id"] for row in rows]


async def regions_of_documents(conn: Connection, documents: Sequence[UUID]) -> dict[UUID, str]:
    """Return where documents are that are known, but not those that are being received."""
    rows = await conn.fetch(
        "select id, region from document where id = any($1) and custody <> 'receiving'",
        list(documents),
    )
    return {row["id"]: row["region"] for row in rows}


async def regions_of_orders(conn: Connection, orders: Sequence[UUID]) -> dict[UUID, str]:
    """Return where orders are that are known."""
    rows = await conn.fetch("select id, region from porting_order where id = any($1)", list(orders))
    return {row["id"]: row["region"] for row in rows}


async def gone_orders(conn: Connection, orders: Sequence[UUID]) -> list[UUID]:
    """Return which orders have ended and lost all their documents and their details."""
    rows = await conn.fetch(
        """
        select o.id from porting_order o
        where o.id = any($1) and o.ended_at is not null and o.details is null
            and not exists (select from document d
                where d.order_id = o.id and d.custody in ('receiving', 'stored'))
        """,
        list(orders),
    )
    return [row["id"] for row in rows]


# ---- Restrictions: who asked that a document is not read, and when that ended. ------------------


async def insert_restriction(conn: Connection, restriction: Restriction) -> None:
    """Restrict a document that is not restricted."""
    await conn.execute(
        """
        insert into restriction (id, document, reason, placed_by, placed_at)
        values ($1, $2, $3, $4, $5)
        """,
        restriction.id,
        restriction.document,
        restriction.reason,
        restriction.placed_by,
        restriction.placed_at,
    )


async def living_restrictions(
    conn: Connection, documents: Sequence[UUID]
) -> dict[UUID, Restriction]:
    """Return the restrictions that are on documents now, by document."""
    if not documents:
        return {}
    rows = await conn.fetch(
        """
        select id, document, reason, placed_by, placed_at from restriction
        where document = any($1) and lifted_at is null
        """,
        list(documents),
    )
    return {row["document"]: Restriction(**dict(row)) for row in rows}


async def lift_restriction(conn: Connection, document: UUID, by: str, now: datetime) -> None:
    """End the restriction of a document."""
    await conn.execute(
        """
        update restriction set lifted_by = $2, lifted_at = $3
        where document = $1 and lifted_at is null
        """,
        document,
        by,
        now,
    )
