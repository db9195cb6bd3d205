"""Certificates of destruction, and what they are made from."""

from datetime import datetime
from uuid import UUID

from vault.domain.access import Action
from vault.domain.certificates import Issued
from vault.domain.documents import Document
from vault.domain.records import Record
from vault.sql.connection import Connection
from vault.sql.documents import COLUMNS, document_of
from vault.sql.log import record_of


async def uncertified(conn: Connection, region: str, size: int, limit: int) -> list[Document]:
    """Return sealed and purged documents to certify, whose life and end a log of `size` holds."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS} from document d
        where d.region = $1 and d.custody = 'sealed' and d.purged_at is not null
            and not exists (select from certificate c where c.document = d.id)
            and not exists (
                select from access_record r left join log_leaf l on l.record = r.id
                where r.document = d.id and r.action in (
                        '{Action.DOCUMENT_INGEST}', '{Action.DOCUMENT_SHRED}')
                    and (l.index is null or l.index >= $2))
        order by d.sealed_at limit $3
        """,
        region,
        size,
        limit,
    )
    return [document_of(row) for row in rows]


async def log_indices(conn: Connection, document: UUID, size: int) -> list[int]:
    """Return where in a log of `size` the document's records stand, ascending."""
    rows = await conn.fetch(
        "select index from log_leaf where document = $1 and index < $2 order by index",
        document,
        size,
    )
    return [row["index"] for row in rows]


async def issue_record(conn: Connection, thing: UUID, digest: str) -> tuple[int, Record] | None:
    """Return the record, and its place in the log, that names a thing's certificate by digest."""
    row = await conn.fetchrow(
        f"""
        select l.index, r.* from log_leaf l join access_record r on r.id = l.record
        where l.record = any(array(
                select record from log_leaf
                where document = $1 and action = '{Action.CERTIFICATE_ISSUE}' union all
                select record from log_leaf
                where "order" = $1 and document is null and action = '{Action.CERTIFICATE_ISSUE}'))
            and r.phase = 'intent' and r.reference = $2
        """,
        thing,
        digest,
    )
    return (row["index"], record_of(row)) if row else None


async def insert(
    conn: Connection, document: UUID, region: str, note: str, issued_at: datetime
) -> bool:
    """Keep a certificate; the first one stands, and False says that this is not it."""
    done = await conn.execute(
        """
        insert into certificate (document, region, note, issued_at) values ($1, $2, $3, $4)
        on conflict do nothing
        """,
        document,
        region,
        note,
        issued_at,
    )
    return done == "INSERT 0 1"


async def find(conn: Connection, document: UUID) -> str | None:
    """Return the signed note."""
    row = await conn.fetchrow("select note from certificate where document = $1", document)
    return row["note"] if row else None


async def find_of_order(conn: Connection, order: UUID) -> str | None:
    """Return the signed note of an order."""
    row = await conn.fetchrow("select note from order_certificate where order_id = $1", order)
    return row["note"] if row else None


async def insert_of_order(
    conn: Connection, order: UUID, region: str, note: str, issued_at: datetime
) -> None:
    """Keep an order's certificate; the order is locked."""
    await conn.execute(
        """
        insert into order_certificate (order_id, region, note, issued_at) values ($1, $2, $3, $4)
        """,
        order,
        region,
        note,
        issued_at,
    )


async def uncertified_of_order(conn: Connection, order: UUID) -> int:
    """Return how many documents of an order have no certificate yet, those to come included."""
    found: int = await conn.fetchval(
        """
        select count(*) from document d where d.order_id = $1
            and not exists (select from certificate c where c.document = d.id)
        """,
        order,
    )
    return found


async def issued_of_order(conn: Connection, order: UUID) -> list[Issued]:
    """Return the certificates of an order's documents."""
    rows = await conn.fetch(
        """
        select d.id document, d.kind, c.note, d.sealed_at
        from document d join certificate c on c.document = d.id
        where d.order_id = $1 order by d.received_at, d.id
        """,
        order,
    )
    return [Issued(**dict(row)) for row in rows]
