"""
What becomes of rows that are good until a time: each table is swept, or kept for a reason.

A test walks all tables of the database and knows those with such a column, so that a new one needs
a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from vault.sql.connection import Connection

# ---- What bounds the worker's shredding: when it last looked, and how much went lately. ---------

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


async def seconds_since_look(conn: Connection) -> tuple[datetime, float] | None:
    """Return when a worker last looked at any region, and for how many seconds none has since."""
    row = await conn.fetchrow(
        """
        select max(seen_at), extract(epoch from clock_timestamp() - max(seen_at))::float8
        from expiry_clock
        """
    )
    return (row[0], row[1]) if row is not None and row[0] is not None else None


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


async def faxes_that_came(conn: Connection, region: str, after: datetime, before: datetime) -> int:
    """Return how many faxes wait that came at `after` or later, and before `before`."""
    found: int = await conn.fetchval(
        """
        select count(*) from fax
        where region = $1 and custody = 'stored' and received_at >= $2 and received_at < $3
        """,
        region,
        after,
        before,
    )
    return found


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


# ---- Expiry. ------------------------------------------------------------------------------------

#: A column of one of these names says that a row is good until then, or counts until then.
COLUMNS = frozenset({"expires_at", "next_at", "bucket"})

#: Tables whose rows stay, and why.
KEPT: Mapping[str, str] = {
    "token": "the log names who did something by it; only the operator makes one",
    "break_glass": "who sealed and opened one is asked for later; each took four eyes",
}
#: Tables that somebody else sweeps, and who.
SWEPT_ELSEWHERE: Mapping[str, str] = {
    "usage": "vault/actions/expire.py, by the number of its bucket",
    "fax": "vault/actions/fax_delivery.py, when its receipt is old enough",
}

BATCH = 5000


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Before which time what goes: what is over, old approvals, and old signals."""

    now: datetime
    approvals: datetime
    signals: datetime


_OLD_SIGNALS = """
    select id from signal where at < $1 and not exists (
        select from signal_delivery where signal = signal.id and state = 'waiting'
    ) limit $2
"""
_SIMPLE = """
    delete from {table} where ctid = any(array(
        select ctid from {table} where expires_at < $1 limit $2 for update skip locked
    ))
"""
#: Table, which cutoff, and the statement; each sweeps at most so many rows.
SWEPT: Mapping[str, tuple[str, str]] = {
    "session": ("now", _SIMPLE.format(table="session")),
    "taken_once": ("now", _SIMPLE.format(table="taken_once")),
    "approval": ("approvals", _SIMPLE.format(table="approval")),
    "signal_delivery": (
        "signals",
        f"delete from signal_delivery where signal in ({_OLD_SIGNALS})",
    ),
    "signal": (
        "signals",
        f"""
        delete from signal where id in ({_OLD_SIGNALS})
            and not exists (select from signal_delivery where signal = signal.id)
        """,
    ),
}


async def sweep(conn: Connection, cutoffs: Cutoffs) -> int:
    """Delete what is over, so much of each table at once; returns how many rows went."""
    count = 0
    for cutoff, statement in SWEPT.values():
        done = await conn.execute(statement, getattr(cutoffs, cutoff), BATCH)
        count += int(done.rpartition(" ")[2])
    return count
