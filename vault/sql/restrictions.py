"""Restrictions: who asked that a document is not read, and when that ended."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from vault.domain.holds import Restriction
from vault.sql.connection import Connection


async def insert(conn: Connection, restriction: Restriction) -> None:
    """Restrict a document that is not restricted."""
    await conn.execute(
        """
        insert into restriction (id, document, reason, placed_by, placed_at)
        values ($1, $2, $3, $4, $5)
        """,
        restriction.id,
        restriction.document,
        restriction.reason,
        restriction.placed_by,
        restriction.placed_at,
    )


async def living(conn: Connection, documents: Sequence[UUID]) -> dict[UUID, Restriction]:
    """Return the restrictions that are on documents now, by document."""
    if not documents:
        return {}
    rows = await conn.fetch(
        """
        select id, document, reason, placed_by, placed_at from restriction
        where document = any($1) and lifted_at is null
        """,
        list(documents),
    )
    return {row["document"]: Restriction(**dict(row)) for row in rows}


async def lift(conn: Connection, document: UUID, by: str, now: datetime) -> None:
    """End the restriction of a document."""
    await conn.execute(
        """
        update restriction set lifted_by = $2, lifted_at = $3
        where document = $1 and lifted_at is null
        """,
        document,
        by,
        now,
    )
