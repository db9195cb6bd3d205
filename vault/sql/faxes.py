"""Faxes and their receipts: looked at, and waiting for another attempt."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.data_keys import COLUMNS_OF_THING, with_data_key, wrapped_key_if_any
from keys.keyring import Keyring, WrappedKey
from vault.domain.documents import Custody
from vault.domain.faxes import TRANSITIONS, Channel, Direction, Fax, State
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.log import insert_records, record_rows, records_insert
from vault.sql.shared import Shared

_NAMES = tuple(Fax.__dataclass_fields__)
#: Of the table `f`, in the order of the fields.
COLUMNS = ", ".join(f"f.{name}" for name in _NAMES)
#: What a row holds as text is more than that, by its place.
_KINDS = [
    (_NAMES.index(name), kind)
    for name, kind in (
        ("direction", Direction),
        ("channel", Channel),
        ("state", State),
        ("custody", Custody),
        ("facts", json.loads),
    )
]


def fax_of(row: asyncpg.Record) -> Fax:
    """Return the fax that a row holds, whose first columns are `COLUMNS`."""
    values = list(row[: len(_NAMES)])
    for place, kind in _KINDS:
        values[place] = kind(values[place])
    return Fax(*values)


async def find(conn: Connection, fax: UUID, *, lock: bool = False) -> Fax | None:
    """Return the fax, or its receipt; with `lock` nobody else changes it meanwhile."""
    row = await conn.fetchrow(
        f"select {COLUMNS} from fax f where id = $1" + (" for update" if lock else ""), fax
    )
    return fax_of(row) if row else None


async def find_many(conn: Connection, faxes: Collection[UUID]) -> dict[UUID, Fax]:
    """Return the faxes, or their receipts, that there are."""
    rows = await conn.fetch(f"select {COLUMNS} from fax f where id = any($1)", list(faxes))
    return {row["id"]: fax_of(row) for row in rows}


@dataclass(frozen=True, slots=True)
class ClaimedFax:
    """A fax that was taken under an Idempotency-Key, and how another one is held against it."""

    key: str
    fax: Fax
    #: The MAC of its request and content, and the wrapped key it is under; None once it has ended.
    fingerprint: bytes | None
    wrapped: WrappedKey | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What a decision needs of a fax: where it is kept, and how; nothing where there is none."""

    region: str | None = None
    custody: Custody | None = None
    size_bytes: int | None = None
    state: State | None = None


async def look_at_many(conn: Connection, faxes: Sequence[UUID]) -> list[Looked]:
    """Return what there is of each, in their order."""
    rows = await conn.fetch(
        "select id, region, custody, size_bytes, state from fax where id = any($1)",
        list(set(faxes)),
    )
    found = {
        fax: Looked(region, Custody(custody), size, State(state))
        for fax, region, custody, size, state in rows
    }
    return [found.get(fax) or Looked() for fax in faxes]


async def look_at_one(conn: Connection, fax: UUID) -> Looked:
    """Return what there is of one."""
    (looked,) = await look_at_many(conn, [fax])
    return looked


#: Looks faxes up, many readers' in one statement.
LOOK_AT = Shared("fax-finder", look_at_many, look_at_one)


async def find_claimed(
    conn: Connection, principal: str, idempotency_keys: Sequence[str]
) -> dict[str, ClaimedFax]:
    """Return the faxes that were taken under these keys, by key."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, f.idempotency_key, f.fingerprint, {COLUMNS_OF_THING}
        from fax f {with_data_key("f.id")}
        where f.principal = $1 and f.idempotency_key = any($2)
        """,
        principal,
        list(idempotency_keys),
    )
    return {row["idempotency_key"]: _claimed(row) for row in rows}


def _claimed(row: asyncpg.Record) -> ClaimedFax:
    return ClaimedFax(
        row["idempotency_key"], fax_of(row), row["fingerprint"], wrapped_key_if_any(row)
    )


async def page(
    conn: Connection,
    regions: Sequence[str],
    *,
    direction: str | None,
    states: Sequence[str] | None,
    channel: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Fax]:
    """Return faxes of the regions that fit, newest first, that come after the cursor."""
    at, identity = before or (None, None)
    # Region by region, each in the order of its index. Written out, so that it is planned
    # with the index of those few.
    few = "and state <> 'delivered'" if states and "delivered" not in states else ""
    rows = await conn.fetch(
        f"""
        select {COLUMNS} from unnest($1::text[]) mine (region), lateral (
            select * from fax where region = mine.region and ($2::text is null or direction = $2)
                and ($3::text[] is null or state = any($3)) and ($4::text is null or channel = $4)
                and ($5::timestamptz is null or (received_at, id) < ($5, $6)) {few}
            order by received_at desc, id desc limit $7) f
        order by f.received_at desc, f.id desc limit $7
        """,
        list(regions),
        direction,
        list(states) if states is not None else None,
        channel,
        at,
        identity,
        limit,
    )
    return [fax_of(row) for row in rows]


async def queue(conn: Connection, fax: UUID, result: str, next_attempt_at: datetime) -> Fax | None:
    """Have a fax whose delivery failed wait for the next attempt."""
    row = await conn.fetchrow(
        f"""
        update fax f set state = 'queued', result = $2, next_attempt_at = $3
        where id = $1 and custody = 'stored' returning {COLUMNS}
        """,
        fax,
        result,
        next_attempt_at,
    )
    return fax_of(row) if row else None


# ---- Beginning attempts to deliver faxes, many in a statement, which makes their intents durable,
# too.
#
# A fax that somebody has locked, that has ended, or that two of the group want is left out;
# whoever has no intent to make durable is tried again by `open_one`, which waits and says what
# became of it.

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
        returning {COLUMNS}, {COLUMNS_OF_THING}, s.place
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
        where {_MAY} returning {COLUMNS}, {COLUMNS_OF_THING}
        """,
        item.fax,
        item.now,
        item.until,
        item.alone,
        _intents([item]),
    )
    return _opened(row) if row else Opened(await find(conn, item.fax), None)


#: Begins attempts to deliver faxes, each with its intent.
OPEN = Shared("fax-opener", open_many, open_one, intents=True)


def _intents(items: Sequence[Opening]) -> list[tuple[object, ...]]:
    return record_rows([item.intent for item in items if item.intent])


def _opened(row: asyncpg.Record) -> Opened:
    return Opened(fax_of(row), wrapped_key_if_any(row))


# ---- Bringing faxes to their end, many in a transaction: beyond use, with the records that say
# so.
#
# One that somebody has locked is left out, and tried again by `end_one`, which waits.


@dataclass(frozen=True, slots=True)
class Ending:
    """
    A fax that is to end, and how; `outcome` makes the record, given why nothing changed.

    The `keyring` destroys the keys; all endings of a group bring the same one.
    """

    keyring: Keyring
    fax: UUID
    state: State
    result: str | None
    now: datetime
    outcome: Callable[[str | None], Record]


#: The reason of an outcome that changed nothing, since the fax had ended so before.
ALREADY = "already"


async def end_many(conn: Connection, items: Sequence[Ending]) -> list[Fax | None]:
    """
    Return the faxes as they are after it; None for one that may only be locked.

    A fax that had ended otherwise stays as it was, and nothing is recorded.
    """
    return await _end(conn, items, "skip locked")


async def end_one(conn: Connection, item: Ending) -> Fax | None:
    """End one fax, and wait for whoever else has it; None when there is none."""
    (ended,) = await _end(conn, [item], "")
    return ended


#: Brings faxes to their end, each with its outcome.
END = Shared("fax-ender", end_many, end_one)


async def _end(conn: Connection, items: Sequence[Ending], locking: str) -> list[Fax | None]:
    async with conn.transaction():
        locked = await _lock(conn, [item.fax for item in items], locking)
        wanted = dict[UUID, Ending]()
        for item in items:
            # Of two for the same fax the first one ends it.
            if item.fax in locked and item.state in TRANSITIONS[locked[item.fax].state]:
                wanted.setdefault(item.fax, item)
        found = await _shred(conn, locked, list(wanted.values()))
        if before := locked.keys() - found.keys():
            found |= await find_many(conn, before)
        records = [
            item.outcome(None if wanted.get(item.fax) is item else ALREADY)
            for item in items
            if item.fax in found and found[item.fax].state is item.state
        ]
        await insert_records(conn, records)
    return [found.get(item.fax) for item in items]


@dataclass(frozen=True, slots=True)
class _Locked:
    region: str
    state: State


async def _lock(conn: Connection, faxes: Sequence[UUID], locking: str) -> dict[UUID, _Locked]:
    rows = await conn.fetch(
        f"select id, region, state from fax where id = any($1) order by id for update {locking}",
        list(faxes),
    )
    return {fax: _Locked(region, State(state)) for fax, region, state in rows}


async def _shred(
    conn: Connection, locked: dict[UUID, _Locked], endings: Sequence[Ending]
) -> dict[UUID, Fax]:
    by_region = defaultdict[str, list[Ending]](list)
    for ending in endings:
        by_region[locked[ending.fax].region].append(ending)
    ended = dict[UUID, Fax]()
    for region, these in sorted(by_region.items()):
        keyring = these[0].keyring
        generation = await keyring.destroy_keys(conn, region, [item.fax for item in these])
        rows = await conn.fetch(
            f"""
            update fax f set state = e.state, result = case when e.state = 'delivered'
                    then e.result else coalesce(e.result, f.result) end,
                custody = 'shredded', metadata = null, fingerprint = null,
                ended_at = e.now, last_generation = $5
            from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
                e (id, state, result, now)
            where f.id = e.id and f.custody = 'stored' returning {COLUMNS}
            """,
            [item.fax for item in these],
            [item.state.value for item in these],
            [item.result for item in these],
            [item.now for item in these],
            generation,
        )
        ended |= {row["id"]: fax_of(row) for row in rows}
    return ended
