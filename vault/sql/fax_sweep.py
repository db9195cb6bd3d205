"""What the worker looks for among faxes: each by an index that holds only what waits for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.faxes import Channel
from vault.sql.connection import Connection


async def overdue(conn: Connection, region: str, before: datetime, limit: int) -> list[UUID]:
    """Return faxes that came before then and are still in custody, oldest first."""
    rows = await conn.fetch(
        """
        select id from fax where region = $1 and custody = 'stored' and received_at < $2
        order by received_at limit $3
        """,
        region,
        before,
        limit,
    )
    return [row["id"] for row in rows]


async def claim(
    conn: Connection, region: str, channel: Channel, *, now: datetime, until: datetime, limit: int
) -> list[UUID]:
    """Take faxes whose next attempt is due, or whose last one was lost; nobody else gets them."""
    rows = await conn.fetch(
        """
        update fax set next_attempt_at = $4
        where id in (
            select id from fax where region = $1 and channel = $2 and direction = 'inbound'
                and custody = 'stored' and next_attempt_at <= $3
            order by next_attempt_at limit $5 for update skip locked)
        returning id
        """,
        region,
        channel.value,
        now,
        until,
        limit,
    )
    return [row["id"] for row in rows]


async def existing(conn: Connection, faxes: Sequence[UUID]) -> set[UUID]:
    """Return which of these faxes were taken."""
    rows = await conn.fetch("select id from fax where id = any($1)", list(faxes))
    return {row["id"] for row in rows}


async def unpurged(
    conn: Connection, region: str, limit: int, *, newest: bool = False
) -> list[UUID]:
    """Return shredded faxes whose objects may be there, the oldest or the newest."""
    rows = await conn.fetch(
        f"""
        select id from fax where region = $1 and custody <> 'stored' and purged_at is null
        order by ended_at {"desc" if newest else ""} limit $2
        """,
        region,
        limit,
    )
    return [row["id"] for row in rows]


async def set_purged(conn: Connection, purged: Mapping[UUID, int], now: datetime) -> None:
    """Note that every version of these objects is gone; how many those were is not kept."""
    await conn.execute(
        "update fax set purged_at = $2 where id = any($1) and purged_at is null", list(purged), now
    )


async def set_sealed(conn: Connection, region: str, generation: int, now: datetime) -> int:
    """Mark as irrecoverable what was shredded under generations that are destroyed."""
    done = await conn.execute(
        """
        update fax set custody = 'sealed', sealed_at = $3
        where region = $1 and custody = 'shredded' and last_generation <= $2
        """,
        region,
        generation,
        now,
    )
    return int(done.split()[-1])


async def delete_receipts(conn: Connection, region: str, before: datetime, limit: int) -> int:
    """Delete receipts of faxes that came before then and are sealed and purged."""
    done = await conn.execute(
        """
        delete from fax where id in (
            select id from fax where region = $1 and received_at < $2 and custody = 'sealed'
                and purged_at is not null
            order by received_at limit $3)
        """,
        region,
        before,
        limit,
    )
    return int(done.split()[-1])
