"""Certificates of destruction, and what they are made from."""

from datetime import datetime
from uuid import UUID

from vault.domain.documents import Document
from vault.sql.connection import Connection
from vault.sql.documents import COLUMNS, document_of


async def uncertified(conn: Connection, region: str, limit: int) -> list[Document]:
    """Return sealed and purged documents without a certificate, all their records sequenced."""
    rows = await conn.fetch(
        f"""
        select {COLUMNS} from document d
        where d.region = $1 and d.custody = 'sealed' and d.purged_at is not null
            and not exists (select from certificate c where c.document = d.id)
            and not exists (
                select from log_queue q join access_record r on r.id = q.record
                where r.document = d.id)
        order by d.sealed_at limit $2
        """,
        region,
        limit,
    )
    return [document_of(row) for row in rows]


async def log_indices(conn: Connection, document: UUID) -> list[int]:
    """Return where in its region's log the document's records stand, ascending."""
    rows = await conn.fetch(
        """
        select index from log_leaf where document = $1 order by index
        """,
        document,
    )
    return [row["index"] for row in rows]


async def insert(
    conn: Connection, document: UUID, region: str, note: str, issued_at: datetime
) -> None:
    """Keep a certificate; the first one stands."""
    await conn.execute(
        """
        insert into certificate (document, region, note, issued_at) values ($1, $2, $3, $4)
        on conflict do nothing
        """,
        document,
        region,
        note,
        issued_at,
    )


async def find(conn: Connection, document: UUID) -> str | None:
    """Return the signed note."""
    row = await conn.fetchrow("select note from certificate where document = $1", document)
    return row["note"] if row else None
