"""
Beginning attempts to deliver faxes, many in a statement, which makes their intents durable, too.

A fax that somebody has locked, that has ended, or that two of the group want is left out; whoever
has no intent to make durable is tried again by `open_one`, which waits and says what became of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.keyring import WrappedKey
from vault.domain.faxes import Fax
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.faxes import COLUMNS, fax_of, find
from vault.sql.log import record_rows, records_insert

_BEGIN = """
    update fax f set state = 'delivering', next_attempt_at = s.until,
        attempts = attempts + (f.state <> 'delivering')::int
"""
_MAY = """
    f.id = s.id and f.custody = 'stored' and k.id = f.id
        and not (s.alone and f.state = 'delivering' and f.next_attempt_at > s.now)
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """An attempt that is to begin; who wants to be `alone` has it while no other is under way."""

    fax: UUID
    now: datetime
    #: When the attempt counts as lost.
    until: datetime
    alone: bool
    #: None where it is on record already.
    intent: Record | None


@dataclass(frozen=True, slots=True)
class Opened:
    """The fax with its key; without it, the fax as it stands, None where there is none."""

    fax: Fax | None
    key: WrappedKey | None
    #: The intent is durable, and nothing is said of the fax: open it again, without an intent.
    left_out: bool = False


async def open_many(conn: Connection, items: Sequence[Opening]) -> list[Opened | None]:
    """Begin attempts; None for one that has to be tried alone."""
    # Locked by their ids alone: with their custody, too, the index of all that waits is read.
    rows = await conn.fetch(
        f"""
        with recorded as ({records_insert(5)}),
        sought as (
            select distinct on (id) * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[],
                $4::bool[]) with ordinality sought (id, now, until, alone, place)
            order by id, place),
        locked as (
            select id from fax where id = any($1) order by id for update skip locked)
        {_BEGIN} from sought s join locked using (id), data_key k where {_MAY}
        returning {COLUMNS}, k.scope, k.scope_epoch, k.wrap, s.place
        """,
        [item.fax for item in items],
        [item.now for item in items],
        [item.until for item in items],
        [item.alone for item in items],
        _intents(items),
    )
    begun = {row["place"]: _opened(row) for row in rows}
    left_out = Opened(fax=None, key=None, left_out=True)
    return [
        begun.get(place) or (left_out if item.intent else None)
        for place, item in enumerate(items, start=1)
    ]


async def open_one(conn: Connection, item: Opening) -> Opened:
    """Begin one attempt, and wait for whoever else has the fax; its intent waits, too."""
    row = await conn.fetchrow(
        f"""
        with recorded as ({records_insert(5)})
        {_BEGIN} from data_key k,
            (select $1::uuid id, $2::timestamptz now, $3::timestamptz until, $4::bool alone) s
        where {_MAY} returning {COLUMNS}, k.scope, k.scope_epoch, k.wrap
        """,
        item.fax,
        item.now,
        item.until,
        item.alone,
        _intents([item]),
    )
    return _opened(row) if row else Opened(await find(conn, item.fax), None)


def _intents(items: Sequence[Opening]) -> list[tuple[object, ...]]:
    return record_rows([item.intent for item in items if item.intent])


def _opened(row: asyncpg.Record) -> Opened:
    key = WrappedKey(row["id"], row["region"], row["scope"], row["scope_epoch"], row["wrap"])
    return Opened(fax_of(row), key)
