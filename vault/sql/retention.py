"""The facts that retention judges by, and what it said when it last looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from vault.domain.documents import Document
from vault.domain.orders import ENDED, Status
from vault.domain.retention import Event, Facts, GivenInstruction, Instruction
from vault.sql import order_details as details_sql
from vault.sql.connection import Connection
from vault.sql.documents import COLUMNS, UNREVIEWED, document_of
from vault.sql.holds import covering_document, of_customers

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


# ---- The retention policies that were in force, the newest last. --------------------------------

_POLICY = 0x706F6C69  # "poli"


@dataclass(frozen=True, slots=True)
class AppliedPolicy:
    """
    A policy's text as it was applied, by whom, and who agreed where that was needed.

    `grace` is how long an end waits for its reversal; None in versions of earlier releases.
    """

    version: int
    text: str
    applied_at: datetime
    applied_by: str
    approved_by: str | None
    grace: timedelta | None


async def lock_policy(conn: Connection) -> None:
    """Wait for whoever shreds by the policy in force, and let nobody else apply one or shred."""
    await conn.execute("select pg_advisory_xact_lock($1, 0)", _POLICY)


async def freeze_policy(conn: Connection) -> None:
    """Keep the policy in force as it is until the transaction ends."""
    await conn.execute("select pg_advisory_xact_lock_shared($1, 0)", _POLICY)


async def newest_policy(conn: Connection) -> AppliedPolicy | None:
    """Return the policy in force."""
    row = await conn.fetchrow(
        """
        select version, text, applied_at, applied_by, approved_by, grace
        from retention_policy order by version desc limit 1
        """
    )
    return AppliedPolicy(**dict(row)) if row else None


async def find_policy(conn: Connection, version: int) -> AppliedPolicy | None:
    """Return a policy that is or was in force."""
    row = await conn.fetchrow(
        """
        select version, text, applied_at, applied_by, approved_by, grace
        from retention_policy where version = $1
        """,
        version,
    )
    return AppliedPolicy(**dict(row)) if row else None


async def insert_policy(conn: Connection, policy: AppliedPolicy) -> None:
    """Put a policy in force; another of the same version stands."""
    await conn.execute(
        """
        with looked_again as (update order_look set look_at = '-infinity')
        insert into retention_policy (version, text, applied_at, applied_by, approved_by, grace)
        values ($1, $2, $3, $4, $5, $6) on conflict do nothing
        """,
        policy.version,
        policy.text,
        policy.applied_at,
        policy.applied_by,
        policy.approved_by,
        policy.grace,
    )


# ---- Customers' instructions. -------------------------------------------------------------------

_NAMES = tuple(GivenInstruction.__dataclass_fields__)
_COLUMNS = ", ".join(_NAMES)


async def supersede_instruction(conn: Connection, given: GivenInstruction) -> None:
    """Keep an instruction in place of the living one for the same customer and kind."""
    await conn.execute(
        """
        update instruction set withdrawn_by = $4, withdrawn_at = $5
        where region = $1 and customer = $2 and kind is not distinct from $3
            and withdrawn_at is null
        """,
        given.region,
        given.customer,
        given.kind,
        given.given_by,
        given.given_at,
    )
    await conn.execute(
        """
        insert into instruction
            (id, region, customer, kind, keep, reference, given_by, given_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        given.id,
        given.region,
        given.customer,
        given.kind,
        given.keep,
        given.reference,
        given.given_by,
        given.given_at,
    )


async def find_instruction(
    conn: Connection, instruction: UUID, *, lock: bool = False
) -> GivenInstruction | None:
    """Return an instruction; with `lock`, nobody else changes it until the transaction ends."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from instruction where id = $1" + (" for update" if lock else ""),
        instruction,
    )
    return GivenInstruction(**dict(row)) if row else None


async def page_of_instructions(
    conn: Connection,
    regions: Sequence[str],
    customers: Sequence[str] | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[GivenInstruction]:
    """Return instructions of regions and customers, newest first, after the cursor."""
    at, identity = before or (None, None)
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from instruction
        where region = any($1) and ($2::text[] is null or customer = any($2))
            and ($3::timestamptz is null or (given_at, id) < ($3, $4))
        order by given_at desc, id desc limit $5
        """,
        list(regions),
        None if customers is None else list(customers),
        at,
        identity,
        limit,
    )
    return [GivenInstruction(**dict(row)) for row in rows]


async def set_nearest_instruction(
    conn: Connection, instruction: UUID, by: str, now: datetime
) -> None:
    """Resolve an instruction's conflicts: it is followed as nearly as the policy allows."""
    await conn.execute(
        "update instruction set nearest_by = $2, nearest_at = $3 where id = $1",
        instruction,
        by,
        now,
    )


async def withdraw_instruction(conn: Connection, instruction: UUID, by: str, now: datetime) -> None:
    """End an instruction."""
    await conn.execute(
        "update instruction set withdrawn_by = $2, withdrawn_at = $3 where id = $1",
        instruction,
        by,
        now,
    )
