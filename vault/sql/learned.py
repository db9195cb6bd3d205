"""What a restore learned from the published log: the records that the database did not have."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vault.domain.access import Action
from vault.domain.approvals import Act
from vault.sql.connection import Connection
from vault.sql.log_published import LEARNED


@dataclass(frozen=True, slots=True)
class Learned:
    """The completed outcome of an access, with the reference that its intent has."""

    at: datetime
    intent: UUID
    principal: str
    action: str
    document: UUID | None
    order: UUID | None
    reason: str | None
    reference: str | None
    #: The outcome's own reference: when an order's event occurred.
    said: str | None = None


_COLUMNS = (
    'r.at, r.intent, r.principal, r.action, r.document, r."order", r.reason, i.reference, '
    "r.reference said"
)


async def begin(conn: Connection) -> None:
    """Make the table of them, where the log has nothing that is published."""
    await conn.execute(LEARNED)


async def outcomes(conn: Connection, region: str, actions: Sequence[str]) -> list[Learned]:
    """Return the completed outcomes of some actions that are new here, as they followed."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from learned l join access_record r on r.id = l.record
            left join access_record i on i.id = r.intent
        where r.region = $1 and r.phase = 'outcome' and r.result = 'completed'
            and r.action = any($2) and r.intent is not null
        order by l.index
        """,
        region,
        list(actions),
    )
    return [Learned(**dict(row)) for row in rows]


async def unanswered(conn: Connection, region: str, actions: Sequence[str]) -> list[Learned]:
    """Return new intents of some actions of which no record says how they ended."""
    rows = await conn.fetch(
        """
        select i.at, i.id intent, i.principal, i.action, i.document, i."order", i.reason,
            i.reference
        from learned l join access_record i on i.id = l.record
        where i.region = $1 and i.phase = 'intent' and i.decision = 'allow'
            and i.action = any($2) and not exists (
                select from learned n join access_record o on o.id = n.record
                where o.intent = i.id and o.phase = 'outcome')
        order by l.index
        """,
        region,
        list(actions),
    )
    return [Learned(**dict(row)) for row in rows]


async def noted(conn: Connection, intents: Sequence[UUID]) -> list[Learned]:
    """Return what was said of accesses between their intent and their outcome."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from access_record r left join access_record i on i.id = r.intent
        where r.intent = any($1) and r.phase = 'progress'
        """,
        list(intents),
    )
    return [Learned(**dict(row)) for row in rows]


async def who_approved(conn: Connection, region: str, approval: str) -> str | None:
    """Return who agreed to what an approval is for, as the log says."""
    found: str | None = await conn.fetchval(
        f"""
        select principal from access_record
        where region = $1 and action = '{Action.APPROVAL_APPROVE}' and phase = 'intent'
            and decision = 'allow' and reference = $2
        order by at desc limit 1
        """,
        region,
        approval,
    )
    return found


async def use_up_approvals(conn: Connection, region: str) -> None:
    """Mark approvals used, declined or withdrawn that the log says were."""
    await conn.execute(
        """
        update approval a set used_at = r.at from learned l join access_record r on r.id = l.record
        where r.region = $1 and r.phase = 'progress' and r.reason = 'approval/' || a.id
            and a.used_at is null and a.ended_at is null and a.approved_at is not null
        """,
        region,
    )
    # What was agreed to and used after the backup is not agreed to here, and must not be again.
    await conn.execute(
        """
        update approval a set ended_at = r.at, ended_by = r.principal, ended_as = 'withdrawn'
        from learned l join access_record r on r.id = l.record
        where r.region = $1 and r.phase = 'progress' and r.reason = 'approval/' || a.id
            and a.used_at is null and a.ended_at is null
        """,
        region,
    )
    await conn.execute(
        f"""
        update approval a set ended_at = r.at, ended_by = r.principal,
            ended_as = case r.action
                when '{Action.APPROVAL_DECLINE}' then 'declined' else 'withdrawn' end
        from learned l join access_record r on r.id = l.record
            join access_record i on i.id = r.intent
        where r.region = $1 and r.phase = 'outcome' and r.result = 'completed'
            and r.action in ('{Action.APPROVAL_DECLINE}', '{Action.APPROVAL_WITHDRAW}')
            and i.reference = 'approval/' || a.id and a.used_at is null and a.ended_at is null
        """,
        region,
    )


async def count(conn: Connection) -> int:
    """Return how many records are new here."""
    found: int = await conn.fetchval("select count(*) from learned")
    return found


async def end_sessions(conn: Connection) -> None:
    """End every session: who signed out since would be signed in again."""
    await conn.execute("delete from session")


async def set_doubt(conn: Connection, region: str, doubt: str, now: datetime) -> None:
    """Have nothing go by its time until two people have agreed; adds to what is in doubt."""
    await conn.execute(
        """
        insert into expiry_clock (region, seen_at, doubt) values ($1, $3, $2)
        on conflict (region) do update set agreed_until = null,
            doubt = concat_ws('; ', expiry_clock.doubt, excluded.doubt)
        """,
        region,
        doubt,
        now,
    )
    # Who agreed before did not know of it.
    await conn.execute(
        f"""
        update approval set ended_as = 'withdrawn', ended_by = 'restore', ended_at = $2
        where act = '{Act.EXPIRY_RESUME}' and region = $1
            and used_at is null and ended_at is null
        """,
        region,
        now,
    )
