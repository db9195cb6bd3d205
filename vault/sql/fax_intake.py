"""
Taking faxes in, many in a statement: rows, keys and records, or for one fax none of them.

One whose scope somebody has locked is left out, and tried again by `take_one`, which waits.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from keys.keyring import WrappedKey
from vault.domain.faxes import Fax
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.intake import Claim
from vault.sql.log import record_rows, records_insert

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


def _take(locking: str) -> str:
    return f"""
    with given as (
        select * from unnest($1::fax_given[]) with ordinality given ({", ".join(GIVEN)}, place)),
    scopes as (
        select id, epoch from key_scope where id = any($2)
        order by id for key share {locking}),
    ready as (
        select g.* from given g join scopes k on k.id = g.scope and k.epoch = g.scope_epoch
        where clock_timestamp() < g.until),
    taken as (
        insert into fax ({_COLUMNS}) select {_COLUMNS} from ready
        order by principal, idempotency_key
        on conflict (principal, idempotency_key) where idempotency_key is not null do nothing
        returning id),
    keys as (
        insert into data_key (id, region, scope, scope_epoch, wrap)
        select r.id, r.region, r.scope, r.scope_epoch, r.wrap from ready r join taken using (id)),
    recorded as ({records_insert(3, "where document in (select id from taken)")})
    select t.id is not null taken, k.id is null stale_scope
    from given g left join taken t on t.id = g.id
        left join scopes k on k.id = g.scope and k.epoch = g.scope_epoch
    order by g.place
    """


_TAKE_MANY, _TAKE_ONE = _take("skip locked"), _take("")


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


async def _taken(conn: Connection, statement: str, items: Sequence[NewFax]) -> list[Taken]:
    rows = await conn.fetch(
        statement,
        [item.values() for item in items],
        list({item.key.scope for item in items}),
        record_rows([item.outcome() for item in items]),
    )
    return [Taken(*row) for row in rows]
