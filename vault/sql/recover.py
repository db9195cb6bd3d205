"""What the key tree and the log know of, and no row: documents and orders to be brought back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.data_keys import COLUMNS_OF_THING, wrapped_key, wrapped_key_if_any
from keys.keyring import WrappedKey
from vault.domain.access import Action
from vault.domain.faxes import Fax
from vault.sql.connection import Connection
from vault.sql.restore import FAX_ENDS


@dataclass(frozen=True, slots=True)
class LostDocument:
    """A document without a row: its key, and what the log says of its arrival."""

    key: WrappedKey
    order: UUID
    kind: str
    received_at: datetime
    stored_at: datetime
    #: What the log says that came in; None where the last record of it was not published.
    size_bytes: int | None
    #: Its object's size in the bucket; None where there is no object.
    object_bytes: int | None


@dataclass(frozen=True, slots=True)
class LostOrder:
    """An order without a row, and the key of its details, where there is one."""

    id: UUID
    created_at: datetime
    key: WrappedKey | None
    #: Whether the tree has room for its documents; when its details went, as the log says.
    has_scope: bool
    forgotten_at: datetime | None


@dataclass(frozen=True, slots=True)
class EndedDocument:
    """A document without a row that the log says came and was shredded after the backup."""

    id: UUID
    region: str
    order: UUID
    kind: str
    received_at: datetime
    stored_at: datetime
    size_bytes: int | None
    shredded_at: datetime
    shredded_by: str
    #: On what ground; None where the log does not say.
    ground: str | None


_SAID = f"""
    select r.at, r."order", r.kind, r.size_bytes from log_leaf s
        join access_record r on r.id = s.record
    where s.document = k.id and s.action = '{Action.DOCUMENT_INGEST}' and r.region = k.region
"""


async def documents(conn: Connection, region: str, prefix: str) -> list[LostDocument]:
    """Return the documents that have a key and an arrival in the log, and no row."""
    rows = await conn.fetch(
        f"""
        select k.id, k.region, {COLUMNS_OF_THING}, i."order", i.kind,
            i.at received_at, coalesce(o.at, i.at) stored_at, o.size_bytes,
            f.size_bytes object_bytes
        from data_key k
            join lateral ({_SAID} and r.phase = 'intent' and r.decision = 'allow'
                order by s.index limit 1) i on i."order" is not null
            left join lateral ({_SAID} and r.phase = 'outcome' and r.result = 'completed'
                order by s.index limit 1) o on true
            left join found_object f on f.id = $2 || k.id::text
        where k.region = $1 and k.id <> k.scope
            and not exists (
                select from document d where d.id = k.id and d.custody <> 'receiving')
            and not exists (select from fax x where x.id = k.id)
        order by i.at, k.id
        """,
        region,
        prefix,
    )
    return [
        LostDocument(
            wrapped_key(row),
            row["order"],
            row["kind"],
            row["received_at"],
            row["stored_at"],
            row["size_bytes"],
            row["object_bytes"],
        )
        for row in rows
    ]


async def ended_documents(conn: Connection, region: str) -> list[EndedDocument]:
    """Return documents without a row that the log says were stored, and shredded."""
    rows = await conn.fetch(
        f"""
        with ended as (
            select distinct on (r.document) r.document id, r.at shredded_at, r.principal,
                coalesce(i.basis, case i.reason when 'retention' then i.reason end) ground
            from access_record r left join access_record i on i.id = r.intent
            where r.region = $1 and r.action = '{Action.DOCUMENT_SHRED}' and r.phase = 'outcome'
                and r.result = 'completed' and r.reason is null
                and not exists (
                    select from document d where d.id = r.document and d.custody <> 'receiving')
            order by r.document, r.at)
        select e.id, o.region, o."order", o.kind, coalesce(i.at, o.at) received_at, o.at stored_at,
            o.size_bytes, e.shredded_at, e.principal shredded_by, e.ground
        from ended e
            join lateral (
                select r.* from log_leaf s join access_record r on r.id = s.record
                where s.document = e.id and s.action = '{Action.DOCUMENT_INGEST}'
                    and r.phase = 'outcome'
                    and r.result = 'completed' and r.reason is null and r."order" is not null
                order by s.index limit 1) o on true
            left join access_record i on i.id = o.intent
        order by o.at, e.id
        """,
        region,
    )
    return [EndedDocument(**dict(row)) for row in rows]


async def orders(
    conn: Connection, region: str, named: Sequence[UUID], times: Sequence[datetime]
) -> list[LostOrder]:
    """Return orders without a row that the log says were opened, or that documents name."""
    rows = await conn.fetch(
        f"""
        with opened as (
            select r."order" id, min(r.at) at
            from log_leaf s join access_record r on r.id = s.record
            where s.region = $1 and s.action = '{Action.ORDER_CREATE}' and r.phase = 'outcome'
                and r.result = 'completed' and r."order" is not null
            group by r."order"
            union all select * from unnest($2::uuid[], $3::timestamptz[]))
        select n.id order_id, n.at created_at, k.*, s.id is not null has_scope, (
            select min(r.at) from log_leaf l join access_record r on r.id = l.record
            where l."order" = n.id and l.action = '{Action.ORDER_FORGET}' and r.phase = 'outcome'
                and r.result = 'completed') forgotten_at
        from (select id, min(at) at from opened group by id) n
            left join data_key k on k.id = n.id and k.region = $1
            left join key_scope s on s.id = n.id and s.region = $1
        where not exists (select from porting_order o where o.id = n.id)
        order by n.at, n.id
        """,
        region,
        list(named),
        list(times),
    )
    return [
        LostOrder(
            row["order_id"],
            row["created_at"],
            wrapped_key_if_any(row),
            row["has_scope"],
            row["forgotten_at"],
        )
        for row in rows
    ]


async def insert_order(
    conn: Connection,
    order: UUID,
    region: str,
    *,
    customer: str,
    status: str,
    details: bytes | None,
    created_at: datetime,
    details_gone_at: datetime | None,
    now: datetime,
    not_known: Sequence[str],
) -> None:
    """Bring an order back."""
    await conn.execute(
        """
        insert into porting_order (id, region, customer, status, details, created_at, changed_at,
            details_gone_at, recovered_at, not_known)
        values ($1, $2, $3, $4, $5, $6, $8, $7, $8, $9)
        """,
        order,
        region,
        customer,
        status,
        details,
        created_at,
        details_gone_at,
        now,
        list(not_known),
    )


async def insert_document(
    conn: Connection,
    lost: LostDocument,
    *,
    media_type: str,
    size_bytes: int,
    stream_header: bytes,
    now: datetime,
    not_known: Sequence[str],
) -> None:
    """Bring a document back, in place of a row that says it is still being received."""
    await conn.execute("delete from document where id = $1 and custody = 'receiving'", lost.key.id)
    await conn.execute(
        """
        insert into document (id, region, order_id, kind, custody, media_type, size_bytes,
            stream_header, received_at, stored_at, recovered_at, not_known)
        values ($1, $2, $3, $4, 'stored', $5, $6, $7, $8, $9, $10, $11)
        """,
        lost.key.id,
        lost.key.region,
        lost.order,
        lost.kind,
        media_type,
        size_bytes,
        stream_header,
        lost.received_at,
        lost.stored_at,
        now,
        list(not_known),
    )


async def insert_ended(
    conn: Connection,
    ended: EndedDocument,
    *,
    reason: str,
    generation: int,
    now: datetime,
    not_known: Sequence[str],
) -> None:
    """Bring back what is left of a document that was shredded: its row, to be sealed and purged."""
    await conn.execute("delete from document where id = $1 and custody = 'receiving'", ended.id)
    await conn.execute(
        """
        insert into document (id, region, order_id, kind, custody, size_bytes, received_at,
            stored_at, shredded_at, shredded_by, shred_reason, shred_ground, last_generation,
            recovered_at, not_known)
        values ($1, $2, $3, $4, 'shredded', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        ended.id,
        ended.region,
        ended.order,
        ended.kind,
        ended.size_bytes,
        ended.received_at,
        ended.stored_at,
        ended.shredded_at,
        ended.shredded_by,
        reason,
        ended.ground,
        generation,
        now,
        list(not_known),
    )


# ---- Faxes that the key tree and the log know of, and no row; and what was tried with the others.


@dataclass(frozen=True, slots=True)
class LostFax:
    """A fax without a row, and what the log says of it."""

    id: UUID
    region: str
    #: Who brought it, when, and how large it was; None where that was not published.
    principal: str
    received_at: datetime
    size_bytes: int | None
    #: How often it was fetched to be delivered, and whether one of these may have succeeded.
    attempts: int
    doubtful: bool
    #: Its key; None once it has ended, and then the action that ended it, and when.
    key: WrappedKey | None
    #: Its object's size in the bucket; None where there is no object.
    object_bytes: int | None
    ending: str | None
    ended_at: datetime | None


# Of each fax the attempts to deliver it among some records, and whether the last that may have
# succeeded was followed by no failure. An attempt of which no record says that it failed may have.
_TRIED = f"""
    select r.document,
        count(*) filter (where r.action = '{Action.FAX_READ}') attempts,
        coalesce(max(s.index) filter (where r.action = '{Action.FAX_READ}' and not exists (
            select from access_record o where o.intent = r.id and o.phase = 'outcome'
                and o.result in ('failed', 'aborted'))), -1)
        > coalesce(max(s.index) filter (where r.action = '{Action.FAX_FAIL}'), -1) doubtful
    from access_record r join log_leaf s on s.record = r.id
    where r.region = $1 and (
        (r.action = '{Action.FAX_READ}' and r.phase = 'intent' and r.decision = 'allow')
        or (r.action = '{Action.FAX_FAIL}' and r.phase = 'outcome' and r.result = 'completed'))
"""


async def lost(conn: Connection, region: str, prefix: str) -> list[LostFax]:
    """Return the faxes without a row that have a key, or of whose end the log says."""
    rows = await conn.fetch(
        f"""
        with tried as ({_TRIED} group by r.document)
        select i.document id, i.region, i.principal, i.at received_at, o.size_bytes,
            coalesce(t.attempts, 0) attempts, coalesce(t.doubtful, false) doubtful,
            {COLUMNS_OF_THING}, f.size_bytes object_bytes, e.action ending,
            e.at ended_at
        from access_record i
            left join access_record o on o.intent = i.id and o.phase = 'outcome'
                and o.result = 'completed'
            left join data_key k on k.id = i.document and k.region = i.region
            left join lateral (
                select r.action, r.at from log_leaf s join access_record r on r.id = s.record
                where s.document = i.document
                    and s.action in {FAX_ENDS}
                    and r.phase = 'outcome' and r.result = 'completed' and r.reason is null
                order by s.index limit 1) e on true
            left join tried t on t.document = i.document
            left join found_object f on f.id = $2 || i.document::text
        where i.region = $1 and i.action = '{Action.FAX_RECEIVE}' and i.phase = 'intent'
            and i.decision = 'allow' and (k.id is not null or (
                e.at is not null and o.id is not null and o.reason is null))
            and not exists (select from fax x where x.id = i.document)
        order by i.at, i.document
        """,
        region,
        prefix,
    )
    return [
        LostFax(
            **{name: row[name] for name in LostFax.__dataclass_fields__ if name != "key"},
            key=wrapped_key_if_any(row),
        )
        for row in rows
    ]


async def insert(conn: Connection, fax: Fax, principal: str) -> None:
    """Bring a fax back, or its receipt."""
    await conn.execute(
        """
        insert into fax (id, region, direction, channel, state, custody, media_type, size_bytes,
            pages, stream_header, metadata, callee_masked, facts, principal, attempts,
            next_attempt_at, result, received_at, ended_at, last_generation, recovered_at,
            not_known)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '{}', $13, $14, $15, $16, $17,
            $18, $19, $20, $21)
        """,
        fax.id,
        fax.region,
        fax.direction.value,
        fax.channel.value,
        fax.state.value,
        fax.custody.value,
        fax.media_type,
        fax.size_bytes,
        fax.pages,
        fax.stream_header,
        fax.metadata,
        fax.callee_masked,
        principal,
        fax.attempts,
        fax.next_attempt_at,
        fax.result,
        fax.received_at,
        fax.ended_at,
        fax.last_generation,
        fax.recovered_at,
        fax.not_known,
    )


async def note_attempts(conn: Connection, region: str, doubt: str) -> Sequence[UUID]:
    """Count what was tried since the backup; returns faxes that may have been delivered by it."""
    rows = await conn.fetch(
        f"""
        with tried as ({_TRIED} and r.id in (select record from learned) group by r.document)
        update fax f set state = 'queued', attempts = f.attempts + t.attempts,
            result = case when t.doubtful then $2 else f.result end
        from tried t where f.id = t.document and f.custody = 'stored' and t.attempts > 0
        returning f.id, t.doubtful
        """,
        region,
        doubt,
    )
    return [row["id"] for row in rows if row["doubtful"]]
