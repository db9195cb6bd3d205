"""
Taking faxes in, many in a statement: rows, keys and records, or for one fax none of them.

One whose scope somebody has locked is left out, and tried again by `take_one`, which waits.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from keys.data_keys import SKIP_LOCKED, WAIT, Locking, current_keys, kept_keys
from keys.keyring import WrappedKey
from vault.domain.faxes import Channel, Fax
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.intake import Claim
from vault.sql.log import record_rows, records_insert
from vault.sql.shared import Shared

#: What a new fax brings, in the order of the type `fax_given`; first what the fax itself keeps.
_FAX = (
    *("id", "region", "direction", "channel", "state", "custody", "media_type", "size_bytes"),
    *("pages", "stream_header", "metadata", "caller_masked", "callee_masked", "facts"),
    *("next_attempt_at", "received_at"),
)
_CLAIM = ("principal", "idempotency_key", "fingerprint")
GIVEN = (*_FAX, *_CLAIM, "scope", "scope_epoch", "wrap", "until")
_COLUMNS = ", ".join((*_FAX, *_CLAIM))
_fax = attrgetter(*_FAX)
_FACTS = _FAX.index("facts")


def _take(locking: Locking) -> str:
    return f"""
    with given as (
        select * from unnest($1::fax_given[]) with ordinality given ({", ".join(GIVEN)}, place)),
    {current_keys("given", "$2", locking)},
    ready as (
        select g.* from given g join current_keys k on k.id = g.id
        where clock_timestamp() < g.until),
    taken as (
        insert into fax ({_COLUMNS}) select {_COLUMNS} from ready
        order by principal, idempotency_key
        on conflict (principal, idempotency_key) where idempotency_key is not null do nothing
        returning id),
    {kept_keys("taken")},
    recorded as ({records_insert(3, "where document in (select id from taken)")})
    select t.id is not null taken, k.id is null stale_scope
    from given g left join taken t on t.id = g.id
        left join current_keys k on k.id = g.id
    order by g.place
    """


_TAKE_MANY, _TAKE_ONE = _take(SKIP_LOCKED), _take(WAIT)


@dataclass(frozen=True, slots=True)
class NewFax:
    """A fax whose bytes are stored: its row, who asked for it how, its key, and until when."""

    fax: Fax
    claim: Claim
    #: Whether `claim` came with an Idempotency-Key; without one it claims nothing.
    idempotent: bool
    key: WrappedKey
    until: datetime
    #: Makes the record, when the statement is about to be sent.
    outcome: Callable[[], Record]

    def values(self) -> tuple[object, ...]:
        """Return the values of a `fax_given`."""
        fax = list(_fax(self.fax))
        fax[_FACTS] = json.dumps(dict(self.fax.facts))
        key = self.claim.key if self.idempotent else None
        return (
            *(*fax, self.claim.principal, key, self.claim.fingerprint),
            *(self.key.scope, self.key.scope_epoch, self.key.wrap, self.until),
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether the fax is in custody now; if not, its scope was re-keyed, or it was here before."""

    taken: bool
    stale_scope: bool


async def take_many(conn: Connection, items: Sequence[NewFax]) -> list[Taken | None]:
    """Take faxes into custody; None for one whose scope may only be locked."""
    found = await _taken(conn, _TAKE_MANY, items)
    return [None if taken.stale_scope else taken for taken in found]


async def take_one(conn: Connection, item: NewFax) -> Taken:
    """Take one fax, and wait for a seal of its scope."""
    (taken,) = await _taken(conn, _TAKE_ONE, [item])
    return taken


#: Takes faxes into custody, each with its outcome.
TAKE = Shared("fax-taker", take_many, take_one)


async def _taken(conn: Connection, statement: str, items: Sequence[NewFax]) -> list[Taken]:
    rows = await conn.fetch(
        statement,
        [item.values() for item in items],
        list({item.key.scope for item in items}),
        record_rows([item.outcome() for item in items]),
    )
    return [Taken(*row) for row in rows]


# ---- What the worker looks for among faxes: each by an index that holds only what waits for it.


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
