"""Who holds which credential, and who made it: read from what is kept of tokens and envelopes."""

from vault.domain.credentials import Lineage, Link
from vault.sql.connection import Connection

_LINEAGE = """
with recursive link (credential, other, held) as (
    -- Made by nobody known and for nobody named, as before migration 9, it leads to null, too.
    select 'token:' || id, created_by,
        case when created_by is null then person is null else created_by like 'break-glass:%' end
        from token
    union all select 'token:' || id, person, true from token where person is not null
    union all select 'break-glass:' || id, sealed_by, true from break_glass
    -- Opened by nobody knows whom, it leads to null.
    union all select 'break-glass:' || id, opened_by, true from break_glass
        where opened_at is not null
), known (id) as (
    select unnest($1::text[])
    union
    select l.other from known k join link l on l.credential = k.id where l.other is not null
)
select l.credential, l.other, l.held from known k join link l on l.credential = k.id
"""


async def find(conn: Connection, principals: list[str]) -> Lineage:
    """Return the lineage of these principals, up to whoever is at its beginning."""
    rows = await conn.fetch(_LINEAGE, principals)
    return Lineage(
        frozenset(
            Link(row["credential"], row["other"], row["held"])
            for row in rows
            if row["other"] is not None
        ),
        frozenset(row["credential"] for row in rows if row["other"] is None and row["held"]),
    )
