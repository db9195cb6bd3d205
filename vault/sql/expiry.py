"""
What becomes of rows that are good until a time: each table is swept, or kept for a reason.

A test walks all tables of the database and knows those with such a column, so that a new one needs
a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from vault.sql.connection import Connection

#: A column of one of these names says that a row is good until then, or counts until then.
COLUMNS = frozenset({"expires_at", "next_at", "bucket"})

#: Tables whose rows stay, and why.
KEPT: Mapping[str, str] = {
    "token": "the log names who did something by it; only the operator makes one",
    "break_glass": "who sealed and opened one is asked for later; each took four eyes",
}
#: Tables that somebody else sweeps, and who.
SWEPT_ELSEWHERE: Mapping[str, str] = {
    "usage": "vault/actions/forget.py, by the number of its bucket",
    "fax": "vault/actions/fax_sweep.py, when its receipt is old enough",
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
