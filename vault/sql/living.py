"""What was not shredded and needs a data key: documents, faxes, and orders for their details."""

from collections.abc import Sequence
from uuid import UUID

from vault.sql.connection import Connection

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
