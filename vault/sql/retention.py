"""The facts that retention judges by, and what it said when it last looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from vault.domain.documents import Document
from vault.domain.orders import ENDED, Status
from vault.domain.retention import Event, Facts, Instruction
from vault.sql import order_details as details_sql
from vault.sql.connection import Connection
from vault.sql.documents import COLUMNS, UNREVIEWED, document_of
from vault.sql.hold_targets import covering_document, of_customers

_HOLDS = 0x686F6C64  # "hold"

# A document's order, the living instruction that is nearest to its kind, and every living hold.
_FACTS = f"""
    o.customer, o.status order_status, o.ended_at, o.changed_at, i.id instruction, i.keep,
    i.nearest_at, array(
        select distinct t.hold from hold_target t
        where {covering_document("d.id", "d.order_id", "d.region", "o.customer")}) holds
    from document d join porting_order o on o.id = d.order_id left join lateral (
        select id, keep, nearest_at from instruction
        where region = d.region and customer = o.customer and withdrawn_at is null
            and (kind = d.kind or kind is null)
        order by kind nulls last limit 1) i on true
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """A document and the facts to judge it by."""

    document: Document
    facts: Facts


def _judged(row: asyncpg.Record) -> Judged:
    document = document_of(row)
    ended = row["ended_at"] is not None and Status(row["order_status"]) in ENDED
    stored_at = document.stored_at or document.received_at
    instruction = None
    if row["instruction"] is not None:
        nearest = row["nearest_at"] is not None
        instruction = Instruction(row["instruction"], row["keep"], nearest)
    return Judged(
        document,
        Facts(
            kind=document.kind.value,
            region=document.region,
            event=Event(row["order_status"]) if ended else Event.STORED,
            started_at=row["ended_at"] if ended else stored_at,
            learned_at=row["changed_at"] if ended else stored_at,
            instruction=instruction,
            holds=tuple(row["holds"]),
        ),
    )


async def freeze_holds(conn: Connection, region: str) -> None:
    """Keep holds as they are until the transaction ends: nobody places one meanwhile."""
    await conn.execute("select pg_advisory_xact_lock_shared($1, hashtext($2))", _HOLDS, region)


async def change_holds(conn: Connection, region: str) -> None:
    """Wait for whoever shreds by what holds were, and let nobody shred until the end."""
    await conn.execute("select pg_advisory_xact_lock($1, hashtext($2))", _HOLDS, region)


async def judged(conn: Connection, documents: Sequence[UUID]) -> dict[UUID, Judged]:
    """Return the facts of documents, by their ids."""
    rows = await conn.fetch(f"select {COLUMNS}, {_FACTS} where d.id = any($1)", list(documents))
    return {row["id"]: _judged(row) for row in rows}


async def lock_unreviewed(conn: Connection, region: str, version: int, limit: int) -> list[Judged]:
    """Return stored documents that the policy of this version has not judged, locked."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, {_FACTS}
        where d.region = $1 and d.custody = 'stored' and d.reviewed < $2
        limit $3 for update of d skip locked
        """,
        region,
        version,
        limit,
    )
    return [_judged(row) for row in rows]


async def set_reviewed(
    conn: Connection,
    documents: Sequence[UUID],
    due_at: Sequence[datetime | None],
    version: int,
) -> None:
    """Write what retention said of locked documents."""
    await conn.execute(
        """
        update document d set due_at = r.due_at, reviewed = $3
        from unnest($1::uuid[], $2::timestamptz[]) r (id, due_at) where d.id = r.id
        """,
        list(documents),
        list(due_at),
        version,
    )


async def lock_due(
    conn: Connection, region: str, version: int, now: datetime, limit: int
) -> list[Judged]:
    """
    Return stored documents whose time seems to have come, locked, skipping locked ones.

    Their orders are locked against a change of status; holds do not change, see `freeze_holds`.
    """
    # `+ 0` keeps the planner off `document_unreviewed`: every document that was judged has this
    # version, and to look through them all for what is due costs more the more there are.
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, {_FACTS}
        where d.region = $1 and d.custody = 'stored' and d.due_at <= $2 and d.reviewed + 0 = $3
        order by d.due_at limit $4 for update of d skip locked for share of o skip locked
        """,
        region,
        now,
        version,
        limit,
    )
    return [_judged(row) for row in rows]


async def lock_judged(conn: Connection, document: UUID) -> Judged | None:
    """Return one document that is not being received, locked with its order."""
    row = await conn.fetchrow(
        f"""
        select {COLUMNS}, {_FACTS}
        where d.id = $1 and d.custody <> 'receiving' for update of d for share of o
        """,
        document,
    )
    return _judged(row) if row else None


async def look_again(conn: Connection, region: str, documents: Sequence[UUID]) -> None:
    """Have retention judge documents again: something it depends on changed."""
    await conn.execute(
        f"""
        update document d set {UNREVIEWED}
        where region = $1 and id = any($2) and custody = 'stored'
        """,
        region,
        list(documents),
    )


async def look_again_at_orders(conn: Connection, orders: Sequence[UUID]) -> None:
    """Do the same for all documents of orders, and for the orders' own details."""
    await details_sql.look(conn, orders)
    await conn.execute(
        f"update document d set {UNREVIEWED} where order_id = any($1) and custody = 'stored'",
        list(orders),
    )


async def look_again_at_customers(conn: Connection, region: str, customers: Sequence[str]) -> None:
    """Do the same for all documents of customers in a region, and for their orders' details."""
    await details_sql.look_at_customers(conn, region, customers)
    await conn.execute(
        f"""
        update document d set {UNREVIEWED} from porting_order o
        where o.region = $1 and {of_customers("o.customer", "$2::text[]")} and d.order_id = o.id
            and d.custody = 'stored'
        """,
        region,
        list(customers),
    )


async def planned(
    conn: Connection,
    regions: Sequence[str],
    customers: Sequence[str] | None,
    until: datetime,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Judged]:
    """Return stored documents that go until then, soonest first, that come after the cursor."""
    at, identity = after or (None, None)
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, {_FACTS}
        where d.region = any($1) and d.custody = 'stored' and d.due_at <= $2
            and ($3::timestamptz is null or (d.due_at, d.id) > ($3, $4))
            and ($6::text[] is null or o.customer = any($6))
        order by d.due_at, d.id limit $5
        """,
        list(regions),
        until,
        at,
        identity,
        limit,
        None if customers is None else list(customers),
    )
    return [_judged(row) for row in rows]


async def unjudged(conn: Connection, regions: Sequence[str], version: int) -> int:
    """Return how many stored documents the policy in force has not judged yet."""
    found: int = await conn.fetchval(
        """
        select count(*) from document
        where region = any($1) and custody = 'stored' and reviewed < $2
        """,
        list(regions),
        version,
    )
    return found


async def stored_of_kinds(
    conn: Connection, region: str, kinds: Sequence[str], after: UUID | None, limit: int
) -> list[Judged]:
    """Return stored documents of some kinds, by id, for a look at what a policy would do."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, {_FACTS}
        where d.region = $1 and d.custody = 'stored' and d.kind = any($2)
            and ($3::uuid is null or d.id > $3)
        order by d.id limit $4
        """,
        region,
        list(kinds),
        after,
        limit,
    )
    return [_judged(row) for row in rows]


async def database_time(conn: Connection) -> datetime:
    """Return the database's clock."""
    at: datetime = await conn.fetchval("select clock_timestamp()")
    return at


async def lock_unannounced(
    conn: Connection, region: str, until: datetime, limit: int
) -> list[tuple[Document, datetime]]:
    """Return documents that go until then and of which that was not told, locked."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, d.due_at from document d
        where d.region = $1 and d.custody = 'stored' and d.due_at is not null and d.due_at <= $2
            and d.announced_due_at is distinct from d.due_at
        order by d.due_at limit $3 for update skip locked
        """,
        region,
        until,
        limit,
    )
    return [(document_of(row), row["due_at"]) for row in rows]


async def set_announced(conn: Connection, documents: Sequence[UUID]) -> None:
    """Note that it was told when locked documents go."""
    await conn.execute(
        "update document set announced_due_at = due_at where id = any($1)", list(documents)
    )
