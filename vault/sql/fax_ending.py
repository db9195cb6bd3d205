"""
Bringing faxes to their end, many in a transaction: beyond use, with the records that say so.

One that somebody has locked is left out, and tried again by `end_one`, which waits.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.keyring import Keyring
from vault.domain.faxes import TRANSITIONS, Fax, State
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.faxes import COLUMNS, fax_of, find_many
from vault.sql.log import insert_records


@dataclass(frozen=True, slots=True)
class Ending:
    """A fax that is to end, and how; `outcome` makes the record, given why nothing changed."""

    fax: UUID
    state: State
    result: str | None
    now: datetime
    outcome: Callable[[str | None], Record]


#: The reason of an outcome that changed nothing, since the fax had ended so before.
ALREADY = "already"


async def end_many(keyring: Keyring, conn: Connection, items: Sequence[Ending]) -> list[Fax | None]:
    """
    Return the faxes as they are after it; None for one that may only be locked.

    A fax that had ended otherwise stays as it was, and nothing is recorded.
    """
    return await _end(keyring, conn, items, "skip locked")


async def end_one(keyring: Keyring, conn: Connection, item: Ending) -> Fax | None:
    """End one fax, and wait for whoever else has it; None when there is none."""
    (ended,) = await _end(keyring, conn, [item], "")
    return ended


async def _end(
    keyring: Keyring, conn: Connection, items: Sequence[Ending], locking: str
) -> list[Fax | None]:
    async with conn.transaction():
        locked = await _lock(conn, [item.fax for item in items], locking)
        wanted = dict[UUID, Ending]()
        for item in items:
            # Of two for the same fax the first one ends it.
            if item.fax in locked and item.state in TRANSITIONS[locked[item.fax].state]:
                wanted.setdefault(item.fax, item)
        found = await _shred(keyring, conn, locked, list(wanted.values()))
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
    keyring: Keyring, conn: Connection, locked: dict[UUID, _Locked], endings: Sequence[Ending]
) -> dict[UUID, Fax]:
    by_region = defaultdict[str, list[Ending]](list)
    for ending in endings:
        by_region[locked[ending.fax].region].append(ending)
    ended = dict[UUID, Fax]()
    for region, these in sorted(by_region.items()):
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
