"""
Taking documents in, many at once: a statement that announces, and one that keeps.

Each is a transaction of its own. For each item they say what became of it; an item whose rows
somebody else has locked is left out, and tried again by `announce_one` or `keep_one`, which wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.data_keys import (
    COLUMNS_OF_THING,
    SKIP_LOCKED,
    WAIT,
    Locking,
    current_keys,
    kept_keys,
    with_data_key,
    wrapped_key_if_any,
)
from keys.keyring import WrappedKey
from vault.domain.documents import Document
from vault.domain.orders import ENDED
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.documents import COLUMNS, document_of
from vault.sql.log import record_rows, records_insert
from vault.sql.shared import Shared

_ENDED = sorted(status.value for status in ENDED)


@dataclass(frozen=True, slots=True)
class Claim:
    """An Idempotency-Key, whose it is, and, once it is known, the MAC of what it was sent with."""

    principal: str
    key: str
    fingerprint: bytes | None


@dataclass(frozen=True, slots=True)
class Announcement:
    """An upload to an order that is about to be received; the intent is its record."""

    intent: Record
    document: UUID
    order: UUID
    kind: str
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Announced:
    """Whether the order takes it, and what was made before with the same Idempotency-Key."""

    accepted: bool
    earlier: UUID | None = None


@dataclass(frozen=True, slots=True)
class Keeping:
    """A document whose bytes are stored: what its row, its key and its outcome say."""

    key: WrappedKey
    media_type: str
    size_bytes: int
    stream_header: bytes
    metadata: bytes
    now: datetime
    claim: Claim | None
    #: Makes the record, when the statement is about to be sent.
    outcome: Callable[[], Record]


@dataclass(frozen=True, slots=True)
class Kept:
    """The document, or why nothing of it was committed."""

    document: Document | None
    stale_scope: bool = False
    swept_up: bool = False


def _announce(locking: Locking) -> str:
    return f"""
    with sent as (
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[],
            $6::text[]) with ordinality sent (id, order_id, kind, at, principal, key, place)),
    open as (
        select id, region from porting_order
        where id = any($2) and status <> all($7::text[]) order by id for key share {locking}),
    earlier as (
        select s.id, i.resource
        from sent s join idempotency i on i.principal = s.principal and i.key = s.key),
    recorded as ({records_insert(8)}),
    received as (
        insert into document (id, region, order_id, kind, custody, received_at)
        select s.id, o.region, s.order_id, s.kind, 'receiving', s.at
        from sent s join open o on o.id = s.order_id
        where not exists (select from earlier e where e.id = s.id)
        returning id)
    select r.id is not null accepted, e.resource
    from sent s left join received r on r.id = s.id left join earlier e on e.id = s.id
    order by s.place
    """


def _keep(locking: Locking) -> str:
    return f"""
    with sent as (
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bytea[],
            $6::bytea[], $7::timestamptz[], $8::text[], $9::bigint[], $10::bytea[], $11::text[],
            $12::text[], $13::bytea[]) with ordinality
            sent (id, scope, media_type, size_bytes, header, metadata, now, region, scope_epoch,
                wrap, principal, key, fingerprint, place)),
    {current_keys("sent", "$2", locking)},
    receiving as (
        select id from document where id = any($1) and custody = 'receiving'
        order by id for no key update {locking}),
    ready as (
        select s.* from sent s join receiving r on r.id = s.id
            join current_keys k on k.id = s.id),
    claimed as (
        insert into idempotency (principal, key, fingerprint, resource, created_at)
        select principal, key, fingerprint, id, now from ready where key is not null
        order by principal, key on conflict do nothing returning resource),
    stored as (
        update document d set custody = 'stored', media_type = s.media_type,
            size_bytes = s.size_bytes, stream_header = s.header, metadata = s.metadata,
            stored_at = s.now
        from ready s where d.id = s.id and d.custody = 'receiving'
            and (s.key is null or s.id in (select resource from claimed))
        returning {COLUMNS}),
    {kept_keys("stored")},
    recorded as ({records_insert(14, "where document in (select id from stored)")})
    select k.id is null stale_scope, r.id is null swept_up, {COLUMNS}
    from sent s left join current_keys k on k.id = s.id
        left join receiving r on r.id = s.id left join stored d on d.id = s.id
    order by s.place
    """


_ANNOUNCE = {locking: _announce(locking) for locking in (SKIP_LOCKED, WAIT)}
_KEEP = {locking: _keep(locking) for locking in (SKIP_LOCKED, WAIT)}


async def announce_many(conn: Connection, items: Sequence[Announcement]) -> list[Announced | None]:
    """
    Record intents and announce their uploads; durable when this returns.

    None for one that was not announced, which may be only because its order is locked. Its intent
    is recorded, and `announce_one` does not record it again.
    """
    found = await _announced(conn, items, SKIP_LOCKED)
    return [made if made.accepted or made.earlier else None for made in found]


async def announce_one(conn: Connection, item: Announcement) -> Announced:
    """Announce one upload, and wait for its order where that is being changed."""
    (made,) = await _announced(conn, [item], WAIT)
    return made


async def _announced(
    conn: Connection, items: Sequence[Announcement], locking: Locking
) -> list[Announced]:
    rows = await conn.fetch(
        _ANNOUNCE[locking],
        [item.document for item in items],
        [item.order for item in items],
        [item.kind for item in items],
        [item.intent.at for item in items],
        [item.claim and item.claim.principal for item in items],
        [item.claim and item.claim.key for item in items],
        _ENDED,
        record_rows([item.intent for item in items]),
    )
    return [Announced(*row) for row in rows]


#: Announces uploads, each with its intent.
ANNOUNCE = Shared("announcer", announce_many, announce_one, intents=True)


async def keep_many(conn: Connection, items: Sequence[Keeping]) -> list[Kept | None]:
    """
    Make documents `stored`, with their keys and outcomes; durable when this returns.

    Of an item that cannot be kept nothing is committed; None where it may be only because its
    scope or its row is locked.
    """
    found = await _kept(conn, items, SKIP_LOCKED)
    return [None if made.stale_scope or made.swept_up else made for made in found]


async def keep_one(conn: Connection, item: Keeping) -> Kept:
    """Keep one document, and wait for a seal of its scope, or for whoever sweeps it up."""
    (made,) = await _kept(conn, [item], WAIT)
    return made


async def _kept(conn: Connection, items: Sequence[Keeping], locking: Locking) -> list[Kept]:
    rows = await conn.fetch(
        _KEEP[locking],
        [item.key.id for item in items],
        [item.key.scope for item in items],
        [item.media_type for item in items],
        [item.size_bytes for item in items],
        [item.stream_header for item in items],
        [item.metadata for item in items],
        [item.now for item in items],
        [item.key.region for item in items],
        [item.key.scope_epoch for item in items],
        [item.key.wrap for item in items],
        [item.claim and item.claim.principal for item in items],
        [item.claim and item.claim.key for item in items],
        [item.claim and item.claim.fingerprint for item in items],
        record_rows([item.outcome() for item in items]),
    )
    return [
        Kept(document_of(row) if row["id"] else None, row["stale_scope"], row["swept_up"])
        for row in rows
    ]


#: Keeps documents, each with its outcome.
KEEP = Shared("keeper", keep_many, keep_one)


# ---- What an Idempotency-Key of a principal got, and the MAC of what it asked for. --------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a key made, the MAC of its request, and the wrapped key that the MAC is under."""

    resource: UUID
    #: None where the resource has no data key: its rows say what was asked.
    fingerprint: bytes | None
    #: None once the data key is destroyed.
    wrapped: WrappedKey | None


async def find_claim(conn: Connection, principal: str, key: str) -> Claimed | None:
    """Return what the request that used the key first has made."""
    row = await conn.fetchrow(
        f"""
        select i.resource, i.fingerprint, k.id, k.region, {COLUMNS_OF_THING}
        from idempotency i {with_data_key("i.resource")}
        where i.principal = $1 and i.key = $2
        """,
        principal,
        key,
    )
    return Claimed(row["resource"], row["fingerprint"], wrapped_key_if_any(row)) if row else None


async def insert_claim(
    conn: Connection,
    principal: str,
    key: str,
    *,
    fingerprint: bytes | None,
    resource: UUID,
    now: datetime,
) -> bool:
    """Remember the result with the transaction that makes it; False when another was first."""
    done = await conn.execute(
        """
        insert into idempotency (principal, key, fingerprint, resource, created_at)
        values ($1, $2, $3, $4, $5) on conflict do nothing
        """,
        principal,
        key,
        fingerprint,
        resource,
        now,
    )
    return done == "INSERT 0 1"


async def forget_claims(conn: Connection, region: str, before: datetime) -> int:
    """Forget keys that were used first before then, in whichever region; returns how many."""
    done = await conn.execute("delete from idempotency where created_at < $1", before)
    faxes = await conn.execute(
        """
        update fax set idempotency_key = null, fingerprint = null
        where region = $1 and idempotency_key is not null and received_at < $2
        """,
        region,
        before,
    )
    return int(done.split()[-1]) + int(faxes.split()[-1])
