"""Faxes and their receipts: looked at, and waiting for another attempt."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.keyring import WrappedKey
from vault.domain.documents import Custody
from vault.domain.faxes import Channel, Direction, Fax, State
from vault.sql.connection import Connection

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


async def look_at_many(conn: Connection, faxes: Sequence[UUID]) -> list[Looked]:
    """Return what there is of each, in their order."""
    rows = await conn.fetch(
        "select id, region, custody, size_bytes from fax where id = any($1)", list(set(faxes))
    )
    found = {fax: Looked(region, Custody(custody), size) for fax, region, custody, size in rows}
    return [found.get(fax) or Looked() for fax in faxes]


async def look_at_one(conn: Connection, fax: UUID) -> Looked:
    """Return what there is of one."""
    (looked,) = await look_at_many(conn, [fax])
    return looked


async def find_claimed(
    conn: Connection, principal: str, idempotency_keys: Sequence[str]
) -> dict[str, ClaimedFax]:
    """Return the faxes that were taken under these keys, by key."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, f.idempotency_key, f.fingerprint, k.scope, k.scope_epoch, k.wrap
        from fax f left join data_key k on k.id = f.id
        where f.principal = $1 and f.idempotency_key = any($2)
        """,
        principal,
        list(idempotency_keys),
    )
    return {row["idempotency_key"]: _claimed(row) for row in rows}


def _claimed(row: asyncpg.Record) -> ClaimedFax:
    wrapped = None
    if row["wrap"] is not None:
        wrapped = WrappedKey(
            row["id"], row["region"], row["scope"], row["scope_epoch"], row["wrap"]
        )
    return ClaimedFax(row["idempotency_key"], fax_of(row), row["fingerprint"], wrapped)


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
