"""The retention policies that were in force, the newest last."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vault.sql.connection import Connection

_POLICY = 0x706F6C69  # "poli"


@dataclass(frozen=True, slots=True)
class AppliedPolicy:
    """
    A policy's text as it was applied, by whom, and who agreed where that was needed.

    `grace` is how long an end waits for its reversal; None in versions of earlier releases.
    """

    version: int
    text: str
    applied_at: datetime
    applied_by: str
    approved_by: str | None
    grace: timedelta | None


async def lock(conn: Connection) -> None:
    """Wait for whoever shreds by the policy in force, and let nobody else apply one or shred."""
    await conn.execute("select pg_advisory_xact_lock($1, 0)", _POLICY)


async def freeze(conn: Connection) -> None:
    """Keep the policy in force as it is until the transaction ends."""
    await conn.execute("select pg_advisory_xact_lock_shared($1, 0)", _POLICY)


async def newest(conn: Connection) -> AppliedPolicy | None:
    """Return the policy in force."""
    row = await conn.fetchrow(
        """
        select version, text, applied_at, applied_by, approved_by, grace
        from retention_policy order by version desc limit 1
        """
    )
    return AppliedPolicy(**dict(row)) if row else None


async def find(conn: Connection, version: int) -> AppliedPolicy | None:
    """Return a policy that is or was in force."""
    row = await conn.fetchrow(
        """
        select version, text, applied_at, applied_by, approved_by, grace
        from retention_policy where version = $1
        """,
        version,
    )
    return AppliedPolicy(**dict(row)) if row else None


async def insert(conn: Connection, policy: AppliedPolicy) -> None:
    """Put a policy in force; another of the same version stands."""
    await conn.execute(
        """
        with looked_again as (update order_look set look_at = '-infinity')
        insert into retention_policy (version, text, applied_at, applied_by, approved_by, grace)
        values ($1, $2, $3, $4, $5, $6) on conflict do nothing
        """,
        policy.version,
        policy.text,
        policy.applied_at,
        policy.applied_by,
        policy.approved_by,
        policy.grace,
    )
