"""How the things and the people of open streams stand now, all of them in one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vault.domain.access import Principal
from vault.domain.documents import Custody
from vault.sql.connection import Connection


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
