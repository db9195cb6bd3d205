"""Documents and their way through custody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.data_keys import COLUMNS_OF_THING, with_data_key, wrapped_key_if_any
from keys.keyring import WrappedKey
from vault.domain.access import Principal
from vault.domain.documents import Custody, Document, Kind
from vault.sql.connection import Connection
from vault.sql.holds import covering_document
from vault.sql.shared import Shared

#: Has retention judge a document `d` anew, and keeps since when that waits.
UNREVIEWED = """
    reviewed = 0,
    review_since = case d.reviewed when 0 then d.review_since else clock_timestamp() end
"""
COLUMNS = """
    d.id, d.region, d.order_id, d.kind, d.custody, d.media_type, d.size_bytes, d.stream_header,
    d.metadata, d.received_at, d.stored_at, d.shredded_at, d.shred_reason, d.shredded_by,
    d.last_generation, d.purged_at, d.purged_versions, d.sealed_at, d.shred_ground, d.restricted_at,
    d.retention_row, d.reviewed, d.shred_approved_by, d.replaced_by, d.recovered_at, d.not_known,
    d.left_at
"""
_HELD = covering_document("d.id", "d.order_id", "d.region", "o.customer")


def document_of(row: asyncpg.Record) -> Document:
    """Return the document that a row holds."""
    fields = {name: row[name] for name in Document.__dataclass_fields__}
    fields["kind"], fields["custody"] = Kind(fields["kind"]), Custody(fields["custody"])
    return Document(**fields)


async def find(conn: Connection, document: UUID, *, lock: bool = False) -> Document | None:
    """Return the document, but not one that is still being received."""
    row = await conn.fetchrow(
        f"select {COLUMNS} from document d where id = $1 and custody <> 'receiving'"
        + (" for update" if lock else ""),
        document,
    )
    return document_of(row) if row else None


@dataclass(frozen=True, slots=True)
class Found:
    """A document, None where there is none, and its wrapped key, None where that is gone."""

    document: Document | None
    key: WrappedKey | None


async def find_many(conn: Connection, documents: Sequence[UUID]) -> list[Found]:
    """Return what there is of each, in their order; nothing of what is still being received."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS}, {COLUMNS_OF_THING}
        from unnest($1::uuid[]) with ordinality sought (id, place)
            left join document d on d.id = sought.id and d.custody <> 'receiving'
            {with_data_key("d.id")}
        order by sought.place
        """,
        documents,
    )
    return [_found(row) for row in rows]


async def find_with_key(conn: Connection, document: UUID) -> Found:
    """Return what there is of one."""
    (found,) = await find_many(conn, [document])
    return found


#: Looks documents up, many readers' in one statement.
FIND = Shared("finder", find_many, find_with_key)


def _found(row: asyncpg.Record) -> Found:
    if row["id"] is None:
        return Found(None, None)
    return Found(document_of(row), wrapped_key_if_any(row))


async def count_stored(conn: Connection, region: str) -> int:
    """Return how many documents of a region are in custody."""
    found: int = await conn.fetchval(
        "select count(*) from document where region = $1 and custody = 'stored'", region
    )
    return found


async def of_order(conn: Connection, order: UUID) -> list[Document]:
    """Return the order's documents, oldest first."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS} from document d
        where order_id = $1 and custody <> 'receiving' order by received_at, id
        """,
        order,
    )
    return [document_of(row) for row in rows]


async def set_kind(conn: Connection, document: UUID, kind: Kind) -> None:
    """Say of what kind a document is, and have retention judge it anew."""
    await conn.execute(
        f"update document d set kind = $2, {UNREVIEWED} where id = $1 and custody = 'stored'",
        document,
        kind.value,
    )


async def set_mistaken(
    conn: Connection, document: UUID, *, approved_by: str | None, replaced_by: UUID | None
) -> None:
    """Keep of a shredded document who agreed that it was a mistake, and what took its place."""
    await conn.execute(
        "update document set shred_approved_by = $2, replaced_by = $3 where id = $1",
        document,
        approved_by,
        replaced_by,
    )


async def set_shredded(
    conn: Connection,
    documents: Sequence[UUID],
    *,
    reasons: Sequence[str],
    ground: str,
    rules: Sequence[str],
    policy: int,
    principal: str,
    last_generation: int,
    now: datetime,
) -> list[Document]:
    """Put documents beyond use; their data keys must go in the same transaction."""
    rows = await conn.fetch(
        f"""
        with forgotten as (
            update idempotency set fingerprint = null where resource = any($1))
        update document d set custody = 'shredded', shredded_at = $4, shred_reason = s.reason,
            retention_row = s.rule, shred_ground = $5, shredded_by = $6, last_generation = $7,
            reviewed = $8, metadata = null
        from unnest($1::uuid[], $2::text[], $3::text[]) s (id, reason, rule)
        where d.id = s.id and d.custody = 'stored' returning {COLUMNS}
        """,
        list(documents),
        list(reasons),
        list(rules),
        now,
        ground,
        principal,
        last_generation,
        policy,
    )
    return [document_of(row) for row in rows]


async def unpurged(
    conn: Connection, region: str, limit: int, *, newest: bool = False
) -> list[UUID]:
    """Return shredded documents without a hold whose objects may be there, oldest or newest."""
    rows = await conn.fetch(
        f"""
        select d.id from document d left join porting_order o on o.id = d.order_id
        where d.region = $1 and d.shredded_at is not null and d.purged_at is null
            and not exists (
                select from hold_target t where {_HELD})
        order by d.shredded_at {"desc" if newest else ""} limit $2
        """,
        region,
        limit,
    )
    return [row["id"] for row in rows]


async def set_purged(conn: Connection, purged: Mapping[UUID, int], now: datetime) -> None:
    """Note that every version of these objects is gone, and how many more those were."""
    await conn.execute(
        """
        update document d set purged_at = $3,
            purged_versions = coalesce(d.purged_versions, 0) + p.versions
        from unnest($1::uuid[], $2::int[]) p (id, versions)
        where d.id = p.id and d.purged_at is null
        """,
        list(purged),
        list(purged.values()),
        now,
    )


async def set_sealed(conn: Connection, region: str, generation: int, now: datetime) -> int:
    """Mark as irrecoverable what was shredded under generations that are destroyed."""
    done = await conn.execute(
        """
        update document set custody = 'sealed', sealed_at = $3
        where region = $1 and custody = 'shredded' and last_generation <= $2
        """,
        region,
        generation,
        now,
    )
    return int(done.split()[-1])


async def lock_abandoned(
    conn: Connection, region: str, before: datetime, but: Sequence[UUID]
) -> tuple[UUID, UUID] | None:
    """Return one upload, not among these, that never ended, and its order; it stays locked."""
    row = await conn.fetchrow(
        """
        select id, order_id from document
        where region = $1 and custody = 'receiving' and received_at < $2
            and id <> all($3)
        order by received_at limit 1 for update skip locked
        """,
        region,
        before,
        but,
    )
    return (row["id"], row["order_id"]) if row else None


async def lock_receiving(conn: Connection, document: UUID) -> UUID | None:
    """Lock this upload's row and return its order; None when it has ended or was swept up."""
    row = await conn.fetchrow(
        "select order_id from document where id = $1 and custody = 'receiving' for update",
        document,
    )
    return row["order_id"] if row else None


async def delete_receiving(conn: Connection, document: UUID) -> None:
    """Forget an upload whose object is purged."""
    await conn.execute("delete from document where id = $1 and custody = 'receiving'", document)


async def restrict(conn: Connection, document: UUID, at: datetime | None) -> None:
    """Forbid the reading of a document, or allow it again with None."""
    await conn.execute("update document set restricted_at = $2 where id = $1", document, at)


async def kept(
    conn: Connection, orders: Sequence[UUID], kinds: Sequence[str] | None
) -> dict[UUID, tuple[int, datetime | None]]:
    """Return how many documents, of some kinds, each order has stored, and when the first goes."""
    rows = await conn.fetch(
        """
        select order_id, count(*) number, min(due_at) due_at from document
        where order_id = any($1) and custody = 'stored' and ($2::text[] is null or kind = any($2))
        group by order_id
        """,
        list(orders),
        kinds,
    )
    return {row["order_id"]: (row["number"], row["due_at"]) for row in rows}


# ---- How the things and the people of open streams stand now, all of them in one statement. -----


@dataclass(frozen=True, slots=True)
class Stands:
    """Whether the principal may still act at all, and the document's or fax's custody."""

    living: bool
    #: None where there is no such document or fax, or none any more.
    custody: Custody | None
    restricted: bool


async def stand(
    conn: Connection, streams: Sequence[tuple[Principal, UUID | None]], now: datetime
) -> list[Stands]:
    """
    Return how each principal, and the thing that it reads or brings, stands; in their order.

    A token must be neither revoked nor expired, a person signed in with the same role. Others, such
    as the worker and the operator at the machine, live as long as their process.
    """
    rows = await conn.fetch(
        """
        select case split_part(s.principal, ':', 1)
                when 'token' then exists (
                    select from token t where 'token:' || t.id = s.principal and t.id = s.token
                        and t.revoked_at is null and (t.expires_at is null or t.expires_at > $5))
                when 'person' then exists (
                    select from session p where p.principal = s.principal and p.role = s.role
                        and p.expires_at > $5)
                else true end living,
            coalesce(d.custody, f.custody) custody, d.restricted_at is not null restricted
        from unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[])
                with ordinality s (principal, role, token, document, place)
            left join document d on d.id = s.document
            left join fax f on f.id = s.document
        order by s.place
        """,
        [principal.id for principal, _ in streams],
        [principal.role for principal, _ in streams],
        [_token(principal) for principal, _ in streams],
        [document for _, document in streams],
        now,
    )
    return [
        Stands(
            row["living"], Custody(row["custody"]) if row["custody"] else None, row["restricted"]
        )
        for row in rows
    ]


def _token(principal: Principal) -> UUID | None:
    """Return the id of the principal's token; None where it has none."""
    try:
        return UUID(principal.id.removeprefix("token:"))
    except ValueError:
        return None


# ---- What was not shredded and needs a data key: documents, faxes, and orders for their details.

# A fax's row does not name its scope: of faxes all are asked about, and only those in custody.
_UNKEYED = """
    select d.id from document d where d.region = $1 and d.custody = 'stored' and d.left_at is null
        {of_order}
        and not exists (select from data_key k where k.id = d.id)
    union all
    select f.id from fax f where f.region = $1 and f.custody = 'stored' and f.left_at is null
        and not exists (select from data_key k where k.id = f.id)
    union all
    select o.id from porting_order o where o.region = $1 and o.details is not null {of_id}
        and not exists (select from data_key k where k.id = o.id)
"""
_ALL = _UNKEYED.format(of_order="", of_id="")
_IN_SCOPES = _UNKEYED.format(of_order="and d.order_id = any($2)", of_id="and o.id = any($2)")


class LivingRows:
    """What the rows of documents, faxes and orders say; the keyring asks it."""

    async def unkeyed(
        self, conn: Connection, region: str, scopes: Sequence[UUID] | None
    ) -> list[UUID]:
        """Return what was not shredded and has no data key: of these scopes, or of all (None)."""
        return await keyless(conn, region, scopes)

    async def scopes_of(self, conn: Connection, region: str, things: Sequence[UUID]) -> list[UUID]:
        """Return every scope that keys of these things may have hung on: of a fax all of faxes."""
        rows = await conn.fetch(
            """
            select order_id id from document where id = any($2)
            union select id from porting_order where id = any($2)
            union select s.id from key_scope s where s.region = $1
                and exists (select from fax where id = any($2))
                and not exists (select from porting_order o where o.id = s.id)
            """,
            region,
            list(things),
        )
        return [row["id"] for row in rows]


async def keyless(
    conn: Connection, region: str, scopes: Sequence[UUID] | None = None
) -> list[UUID]:
    """Return documents, faxes and orders that were not shredded and have no key."""
    if scopes is None:
        rows = await conn.fetch(_ALL, region)
    else:
        rows = await conn.fetch(_IN_SCOPES, region, list(scopes))
    return [row["id"] for row in rows]
