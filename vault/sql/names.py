"""What principals were called, and since when: rows beside the log, which can be taken away."""

from collections.abc import Iterable
from datetime import datetime

from vault.domain.people import Name, Names
from vault.sql.connection import Connection


async def note(conn: Connection, principal: str, name: str, now: datetime) -> None:
    """Keep what a principal is called from now on, unless it is called so already."""
    await conn.execute(
        """
        insert into principal_name (principal, since, name)
        select $1::text, $3::timestamptz, $2::text
        where $2::text is distinct from (
            select name from principal_name where principal = $1
            order by since desc limit 1)
        on conflict (principal, since) do update set name = excluded.name
        """,
        principal,
        name,
        now,
    )


async def of(conn: Connection, principals: Iterable[str]) -> Names:
    """Return all names of these principals."""
    rows = await conn.fetch(
        "select principal, since, name from principal_name where principal = any($1)",
        sorted(set(principals)),
    )
    return Names(Name(**row) for row in rows)


async def called(conn: Connection, name: str) -> list[str]:
    """Return the principals that were ever called so."""
    rows = await conn.fetch(
        "select distinct principal from principal_name where name = $1 order by principal", name
    )
    return [row["principal"] for row in rows]


async def forget(conn: Connection, principal: str) -> int:
    """Take all names of a principal away, wherever they stand; returns how many there were."""
    rows = await conn.fetch(
        """
        with labels as (
            update token set label = 'forgotten' where 'token:' || id = $1),
        sessions as (
            update session set shown_as = 'you' where principal = $1)
        delete from principal_name where principal = $1 returning name
        """,
        principal,
    )
    return len(rows)
