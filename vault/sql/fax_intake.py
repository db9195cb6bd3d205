"""
Taking faxes in, many in a statement: rows, keys and records, or for one fax none of them.

One whose scope somebody has locked is left out, and tried again by `take_one`, which waits.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from keys.keyring import WrappedKey
from vault.domain.faxes import Fax
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.intake import Claim
from vault.sql.log import record_columns, records_insert

#: What a new fax brings, with the types of the arrays that carry many.
_FAX = {
    "id": "uuid",
    "region": "text",
    "direction": "text",
    "channel": "text",
    "state": "text",
    "custody": "text",
    "media_type": "text",
    "size_bytes": "bigint",
    "pages": "integer",
    "stream_header": "bytea",
    "metadata": "bytea",
    "caller_masked": "text",
    "callee_masked": "text",
    "facts": "jsonb",
    "next_attempt_at": "timestamptz",
    "received_at": "timestamptz",
}
_CLAIM = {"principal": "text", "idempotency_key": "text", "fingerprint": "bytea"}
_KEY = {"scope": "uuid", "scope_epoch": "bigint", "wrap": "bytea", "until": "timestamptz"}
_GIVEN = {**_FAX, **_CLAIM, **_KEY}
_COLUMNS = ", ".join({**_FAX, **_CLAIM})
_ARRAYS = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_GIVEN.values(), start=1))
_SCOPES = list(_GIVEN).index("scope") + 1


def _take(locking: str) -> str:
    return f"""
    with given as (
        select * from unnest({_ARRAYS}) with ordinality given ({", ".join(_GIVEN)}, place)),
    scopes as (
        select id, epoch from key_scope where id = any(${_SCOPES})
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
    recorded as ({records_insert(len(_GIVEN) + 1, "where document in (select id from taken)")})
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
        """Return the values of the arrays' columns."""
        fax = [getattr(self.fax, name) for name in _FAX if name != "facts"]
        fax.insert(list(_FAX).index("facts"), json.dumps(dict(self.fax.facts)))
        claim = (
            self.claim.principal,
            self.claim.key if self.idempotent else None,
            self.claim.fingerprint,
        )
        return (*fax, *claim, self.key.scope, self.key.scope_epoch, self.key.wrap, self.until)


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
    columns = zip(*(item.values() for item in items), strict=True)
    records = record_columns([item.outcome() for item in items])
    rows = await conn.fetch(statement, *columns, *records)
    return [Taken(*row) for row in rows]
