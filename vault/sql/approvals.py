"""Requests for what takes four eyes, the agreement to them, and their one use."""

from datetime import datetime
from uuid import UUID

import asyncpg

from vault.domain.approvals import Act, Approval, State, Terms
from vault.sql.connection import Connection

_COLUMNS = (
    "id, act, subject, region, purpose, reference, days, reason, requested_by, requested_at,"
    " expires_at, approved_by, approved_at, used_at, ended_by, ended_as, ended_at"
)


def _approval(row: asyncpg.Record) -> Approval:
    fields = dict(row)
    terms = Terms(
        Act(fields.pop("act")),
        fields.pop("subject"),
        fields.pop("region"),
        fields.pop("purpose"),
        fields.pop("reference"),
        fields.pop("days"),
    )
    ended_as = fields.pop("ended_as")
    return Approval(**fields, terms=terms, ended_as=State(ended_as) if ended_as else None)


async def insert(conn: Connection, approval: Approval) -> None:
    """Add a request."""
    await conn.execute(
        """
        insert into approval
            (id, act, subject, region, purpose, reference, days, reason, requested_by,
            requested_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        approval.id,
        approval.terms.act.value,
        approval.terms.subject,
        approval.terms.region,
        approval.terms.purpose,
        approval.terms.reference,
        approval.terms.days,
        approval.reason,
        approval.requested_by,
        approval.requested_at,
        approval.expires_at,
    )


async def find(conn: Connection, identity: UUID, *, lock: bool = False) -> Approval | None:
    """Return it; with `lock`, nobody else approves or uses it until the transaction ends."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from approval where id = $1" + (" for update" if lock else ""),
        identity,
    )
    return _approval(row) if row else None


async def unused(conn: Connection, act: Act, region: str, now: datetime) -> list[Approval]:
    """Return what was agreed to in a region and is not used yet, oldest first, locked."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from approval
        where act = $1 and region = $2 and approved_at is not null and used_at is null
            and ended_at is null and expires_at > $3
        order by requested_at, id for update
        """,
        act.value,
        region,
        now,
    )
    return [_approval(row) for row in rows]


async def page(
    conn: Connection,
    regions: list[str],
    requested_by: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Approval]:
    """Return those of the regions, and of one principal, newest first, after the cursor."""
    at, identity = before or (None, None)
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from approval
        where region = any($1) and ($2::timestamptz is null or (requested_at, id) < ($2, $3))
            and ($5::text is null or requested_by = $5)
        order by requested_at desc, id desc limit $4
        """,
        regions,
        at,
        identity,
        limit,
        requested_by,
    )
    return [_approval(row) for row in rows]


async def set_approved(
    conn: Connection, identity: UUID, *, by: str, now: datetime, expires_at: datetime
) -> None:
    """Keep who agreed, and until when that is good."""
    await conn.execute(
        "update approval set approved_by = $2, approved_at = $3, expires_at = $4 where id = $1",
        identity,
        by,
        now,
        expires_at,
    )


async def set_used(conn: Connection, identity: UUID, now: datetime) -> None:
    """Keep that it was used; it never is again."""
    await conn.execute("update approval set used_at = $2 where id = $1", identity, now)


async def set_ended(
    conn: Connection, identity: UUID, *, by: str, ending: State, now: datetime
) -> None:
    """Keep who declined or withdrew it; nobody approves or uses it any more."""
    await conn.execute(
        "update approval set ended_by = $2, ended_as = $3, ended_at = $4 where id = $1",
        identity,
        by,
        ending.value,
        now,
    )
