"""Faxes that the key tree and the log know of, and no row; and what was tried with the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.keyring import WrappedKey
from vault.domain.faxes import Fax
from vault.sql.connection import Connection


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
_TRIED = """
    select r.document,
        count(*) filter (where r.action = 'fax.read') attempts,
        coalesce(max(s.index) filter (where r.action = 'fax.read' and not exists (
            select from access_record o where o.intent = r.id and o.phase = 'outcome'
                and o.result in ('failed', 'aborted'))), -1)
        > coalesce(max(s.index) filter (where r.action = 'fax.fail'), -1) doubtful
    from access_record r join log_leaf s on s.record = r.id
    where r.region = $1 and ((r.action = 'fax.read' and r.phase = 'intent' and r.decision = 'allow')
        or (r.action = 'fax.fail' and r.phase = 'outcome' and r.result = 'completed'))
"""


async def lost(conn: Connection, region: str, prefix: str) -> list[LostFax]:
    """Return the faxes without a row that have a key, or of whose end the log says."""
    rows = await conn.fetch(
        f"""
        with tried as ({_TRIED} group by r.document)
        select i.document id, i.region, i.principal, i.at received_at, o.size_bytes,
            coalesce(t.attempts, 0) attempts, coalesce(t.doubtful, false) doubtful,
            k.scope, k.scope_epoch, k.wrap, f.size_bytes object_bytes, e.action ending,
            e.at ended_at
        from access_record i
            left join access_record o on o.intent = i.id and o.phase = 'outcome'
                and o.result = 'completed'
            left join data_key k on k.id = i.document and k.region = i.region
            left join lateral (
                select r.action, r.at from log_leaf s join access_record r on r.id = s.record
                where s.document = i.document
                    and s.action in ('fax.deliver', 'fax.fail', 'fax.expire')
                    and r.phase = 'outcome' and r.result = 'completed' and r.reason is null
                order by s.index limit 1) e on true
            left join tried t on t.document = i.document
            left join found_object f on f.id = $2 || i.document::text
        where i.region = $1 and i.action = 'fax.receive' and i.phase = 'intent'
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
            key=WrappedKey(row["id"], row["region"], row["scope"], row["scope_epoch"], row["wrap"])
            if row["wrap"] is not None
            else None,
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
