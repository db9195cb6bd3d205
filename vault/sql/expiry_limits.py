"""What bounds the worker's shredding: when it last looked, and how much went lately."""

from dataclasses import dataclass
from datetime import datetime

from vault.sql.connection import Connection

#: More documents that are due are not counted.
DUE_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Looked:
    """The database's clock, and what is known of a region's looks before."""

    database_at: datetime
    #: None before the first look.
    seen_at: datetime | None
    agreed_until: datetime | None
    #: What a restore could not tell and what keeps documents depends on.
    doubt: str | None


async def looked(conn: Connection, region: str) -> Looked:
    """Return when the worker last looked at a region."""
    row = await conn.fetchrow(
        """
        select clock_timestamp(), seen_at, agreed_until, doubt
        from (select) now left join expiry_clock c on c.region = $1
        """,
        region,
    )
    if row is None:
        raise LookupError("a row of the database's clock")
    return Looked(*row)


async def set_seen(conn: Connection, region: str, now: datetime) -> None:
    """Note that the worker looks now; what it saw before is never taken back."""
    await conn.execute(
        """
        insert into expiry_clock (region, seen_at) values ($1, $2)
        on conflict (region) do update set seen_at = greatest(expiry_clock.seen_at, $2)
        """,
        region,
        now,
    )


async def set_agreed(conn: Connection, region: str, now: datetime, until: datetime) -> None:
    """Note until when two people have agreed to what is due."""
    await conn.execute(
        """
        insert into expiry_clock (region, seen_at, agreed_until) values ($1, $2, $3)
        on conflict (region) do update set seen_at = $2, agreed_until = $3
        """,
        region,
        now,
        until,
    )


async def end_doubt(conn: Connection, region: str) -> None:
    """Note that two people have agreed in spite of what a restore could not tell."""
    await conn.execute("update expiry_clock set doubt = null where region = $1", region)


async def due_and_lately(
    conn: Connection, region: str, now: datetime, since: datetime
) -> tuple[int, int]:
    """Return how many documents are due, and how many went by their time since then."""
    row = await conn.fetchrow(
        """
        select (select count(*) from (
                select from document
                where region = $1 and custody = 'stored' and due_at <= $2 limit $4) due),
            (select coalesce(sum(documents), 0)::bigint from expiry
                where region = $1 and at > $3)
        """,
        region,
        now,
        since,
        DUE_MAX,
    )
    if row is None:
        raise LookupError("a row of two counts")
    due, lately = row
    return due, lately


async def keeps(conn: Connection, region: str, documents: int) -> bool:
    """Whether a region keeps at least so many documents."""
    found: int = await conn.fetchval(
        """
        select count(*) from (
            select from document where region = $1 and custody = 'stored' limit $2) kept
        """,
        region,
        documents,
    )
    return found >= documents


async def faxes_due_and_lately(
    conn: Connection, region: str, before: datetime, since: datetime
) -> tuple[int, int]:
    """Return how many faxes that came before then wait, and how many expired since then."""
    row = await conn.fetchrow(
        """
        select (select count(*) from (
                select from fax
                where region = $1 and custody = 'stored' and received_at < $2 limit $4) due),
            (select count(*) from (
                select from fax
                where region = $1 and state = 'expired' and ended_at > $3 limit $4) lately)
        """,
        region,
        before,
        since,
        DUE_MAX,
    )
    if row is None:
        raise LookupError("a row of two counts")
    due, lately = row
    return due, lately


async def came(conn: Connection, region: str, since: datetime, faxes: int) -> bool:
    """Whether at least so many faxes came to a region since then, whatever became of them."""
    found: int = await conn.fetchval(
        """
        select count(*) from (
            select from fax where region = $1 and received_at >= $2 limit $3) fax
        """,
        region,
        since,
        faxes,
    )
    return found >= faxes


async def note(
    conn: Connection, region: str, now: datetime, since: datetime, documents: int
) -> None:
    """Note that documents went by their time, and forget what went before then."""
    await conn.execute(
        """
        with forgotten as (delete from expiry where region = $1 and at <= $3)
        insert into expiry (region, at, documents) values ($1, $2, $4)
        """,
        region,
        now,
        since,
        documents,
    )
