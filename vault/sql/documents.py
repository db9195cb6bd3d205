"""Documents and their way through custody."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from keys.keyring import WrappedKey
from vault.domain.documents import Custody, Document, Kind
from vault.domain.retention import Rule
from vault.sql.connection import Connection

_COLUMNS = """
    d.id, d.region, d.order_id, d.kind, d.custody, d.media_type, d.size_bytes, d.stream_header,
    d.metadata, d.received_at, d.stored_at, d.shredded_at, d.shred_reason, d.shredded_by,
    d.last_generation, d.purged_at, d.purged_versions, d.sealed_at
"""


def _document(row: asyncpg.Record) -> Document:
    fields = {name: row[name] for name in Document.__dataclass_fields__}
    fields["kind"], fields["custody"] = Kind(fields["kind"]), Custody(fields["custody"])
    return Document(**fields)


async def find(conn: Connection, document: UUID, *, lock: bool = False) -> Document | None:
    """Return the document, but not one that is still being received."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from document d where id = $1 and custody <> 'receiving'"
        + (" for update" if lock else ""),
        document,
    )
    return _document(row) if row else None


@dataclass(frozen=True, slots=True)
class Found:
    """A document, None where there is none, and its wrapped key, None where that is gone."""

    document: Document | None
    key: WrappedKey | None


async def find_many(conn: Connection, documents: Sequence[UUID]) -> list[Found]:
    """Return what there is of each, in their order; nothing of what is still being received."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS}, k.scope, k.scope_epoch, k.wrap
        from unnest($1::uuid[]) with ordinality sought (id, place)
            left join document d on d.id = sought.id and d.custody <> 'receiving'
            left join data_key k on k.id = d.id
        order by sought.place
        """,
        documents,
    )
    return [_found(row) for row in rows]


async def find_with_key(conn: Connection, document: UUID) -> Found:
    """Return what there is of one."""
    (found,) = await find_many(conn, [document])
    return found


def _found(row: asyncpg.Record) -> Found:
    if row["id"] is None:
        return Found(None, None)
    if row["wrap"] is None:
        return Found(_document(row), None)
    key = WrappedKey(row["id"], row["region"], row["scope"], row["scope_epoch"], row["wrap"])
    return Found(_document(row), key)


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
        select {_COLUMNS} from document d
        where order_id = $1 and custody <> 'receiving' order by received_at, id
        """,
        order,
    )
    return [_document(row) for row in rows]


async def due(
    conn: Connection,
    region: str,
    rules: Sequence[Rule],
    *,
    now: datetime,
    grace_seconds: float,
    limit: int,
    only: Sequence[UUID] | None = None,
) -> list[Document]:
    """
    Return stored documents whose time has come under the rules, locked, skipping locked ones.

    `only` re-checks those that were found before. The order's row is locked against a change of
    status until the transaction ends.
    """
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from document d join porting_order o on o.id = d.order_id
            join unnest($2::text[], $3::interval[]) rule (kind, keep) on rule.kind = d.kind
        where d.custody = 'stored' and d.region = $1 and o.ended_at is not null
            and o.ended_at + greatest(rule.keep, make_interval(secs => $4)) <= $5
            and ($7::uuid[] is null or d.id = any($7))
        order by o.ended_at limit $6 for update of d skip locked for share of o skip locked
        """,
        region,
        [rule.kind.value for rule in rules],
        [rule.keep_max for rule in rules],
        grace_seconds,
        now,
        limit,
        list(only) if only is not None else None,
    )
    return [_document(row) for row in rows]


async def set_shredded(
    conn: Connection,
    documents: Sequence[UUID],
    *,
    reason: str,
    principal: str,
    last_generation: int,
    now: datetime,
) -> list[Document]:
    """Put documents beyond use; their keys must go in the same transaction."""
    rows = await conn.fetch(
        f"""
        update document d set custody = 'shredded', shredded_at = $2, shred_reason = $3,
            shredded_by = $4, last_generation = $5, metadata = null
        where id = any($1) and custody = 'stored' returning {_COLUMNS}
        """,
        list(documents),
        now,
        reason,
        principal,
        last_generation,
    )
    return [_document(row) for row in rows]


async def unpurged(conn: Connection, region: str, limit: int) -> list[UUID]:
    """Return shredded documents whose objects are not known to be purged, oldest first."""
    rows = await conn.fetch(
        """
        select id from document
        where region = $1 and shredded_at is not null and purged_at is null
        order by shredded_at limit $2
        """,
        region,
        limit,
    )
    return [row["id"] for row in rows]


async def set_purged(conn: Connection, document: UUID, versions: int, now: datetime) -> None:
    """Note that every version of the object is gone; `versions` adds to what was counted."""
    await conn.execute(
        """
        update document set purged_at = $3, purged_versions = coalesce(purged_versions, 0) + $2
        where id = $1 and purged_at is null
        """,
        document,
        versions,
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


async def lock_abandoned(conn: Connection, region: str, before: datetime) -> UUID | None:
    """Return one upload that never ended, locked until the transaction ends."""
    row = await conn.fetchrow(
        """
        select id from document where region = $1 and custody = 'receiving' and received_at < $2
        order by received_at limit 1 for update skip locked
        """,
        region,
        before,
    )
    return row["id"] if row else None


async def lock_receiving(conn: Connection, document: UUID) -> bool:
    """Lock this upload's row; False when it has ended or was swept up."""
    row = await conn.fetchrow(
        "select id from document where id = $1 and custody = 'receiving' for update",
        document,
    )
    return row is not None


async def delete_receiving(conn: Connection, document: UUID) -> None:
    """Forget an upload whose object is purged."""
    await conn.execute("delete from document where id = $1 and custody = 'receiving'", document)
