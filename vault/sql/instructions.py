"""Customers' instructions."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.retention import GivenInstruction
from vault.sql.connection import Connection

_NAMES = tuple(GivenInstruction.__dataclass_fields__)
_COLUMNS = ", ".join(_NAMES)


async def supersede(conn: Connection, given: GivenInstruction) -> None:
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


async def find(
    conn: Connection, instruction: UUID, *, lock: bool = False
) -> GivenInstruction | None:
    """Return an instruction; with `lock`, nobody else changes it until the transaction ends."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from instruction where id = $1" + (" for update" if lock else ""),
        instruction,
    )
    return GivenInstruction(**dict(row)) if row else None


async def page(
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


async def set_nearest(conn: Connection, instruction: UUID, by: str, now: datetime) -> None:
    """Resolve an instruction's conflicts: it is followed as nearly as the policy allows."""
    await conn.execute(
        "update instruction set nearest_by = $2, nearest_at = $3 where id = $1",
        instruction,
        by,
        now,
    )


async def withdraw(conn: Connection, instruction: UUID, by: str, now: datetime) -> None:
    """End an instruction."""
    await conn.execute(
        "update instruction set withdrawn_by = $2, withdrawn_at = $3 where id = $1",
        instruction,
        by,
        now,
    )
