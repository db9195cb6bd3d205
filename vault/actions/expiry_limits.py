"""
What keeps a wrong clock from shredding what is kept.

Three things are asked before anything goes by its time. Is this clock ahead of the database's? Has
it jumped since the worker last looked, which is all that can be seen where both are on one machine?
And is more due within a day than a share of what is kept? What the last two stop, two people let go
on: one asks for `expiry.resume` with a day as its subject, somebody else agrees, and until the end
of that day whatever is due goes.
"""

import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

from vault.actions.access import Access, own_intent
from vault.context import Vault
from vault.domain.access import Action
from vault.errors import BulkExpiryError, ClockError
from vault.sql import approvals as approvals_sql
from vault.sql import expiry_limits as limits_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection

DAY = timedelta(days=1)
#: A look is noted when the last one that was noted is so old.
NOTED_EVERY = timedelta(minutes=1)


async def trusted_time(vault: Vault, conn: Connection, region: str) -> datetime:
    """
    Return the time by this clock, in a transaction of the caller's.

    Raises `ClockError` where the clock is ahead of the database's, or has jumped further than
    `clock_step_seconds_max` since the worker last looked and nobody has agreed to that.
    """
    now = vault.clock()
    looked = await limits_sql.looked(conn, region)
    ahead = (now - looked.database_at).total_seconds()
    if ahead > vault.config.clock_ahead_seconds_max:
        raise ClockError(
            f"this machine's clock is {ahead:.0f} s ahead of the database's; nothing is shredded "
            "by it until they agree: set both by NTP"
        )
    if looked.seen_at is not None:
        step = (now - looked.seen_at).total_seconds()
        if step > vault.config.clock_step_seconds_max and not await is_agreed(
            vault, conn, region, now
        ):
            raise ClockError(
                f"this machine's clock says {now:%Y-%m-%d}, {step / 86400:.0f} days after the "
                f"worker last looked at {region}; nothing is shredded by it. Set the clock right, "
                f"or, if it is right, have two people agree to expiry.resume of {now:%Y-%m-%d} "
                f"in {region}"
            )
    if looked.seen_at is None or now - looked.seen_at > NOTED_EVERY:
        await limits_sql.set_seen(conn, region, now)
    return now


async def check_bulk(vault: Vault, conn: Connection, region: str, now: datetime) -> None:
    """Raise `BulkExpiryError` where more is due than may go within a day, and nobody agreed."""
    config = vault.config
    due, lately = await limits_sql.due_and_lately(conn, region, now, now - DAY)
    if due + lately <= config.expire_documents_min:
        return
    # Of all that was kept a day ago.
    wanted = math.ceil((due + lately) / config.expire_share_max) - lately
    if await limits_sql.keeps(conn, region, wanted):
        return
    if await is_agreed(vault, conn, region, now):
        return
    raise BulkExpiryError(
        f"{due} documents are due in {region} and {lately} went within a day, more than "
        f"{config.expire_share_max:.0%} of what is kept; nothing is shredded by its time. Look at "
        "the clock and the policy; if all is right, have two people agree to expiry.resume of "
        f"{now:%Y-%m-%d} in {region}"
    )


async def is_agreed(vault: Vault, conn: Connection, region: str, now: datetime) -> bool:
    """Whether two people have agreed that what is due goes today; uses their approval up."""
    looked = await limits_sql.looked(conn, region)
    if looked.agreed_until is not None and now <= looked.agreed_until:
        return True
    for approval, day in await limits_sql.agreements(conn, region, now):
        until = _end_of(day)
        # Not for a clock that says another day than they saw.
        if until is not None and until - DAY <= now < until:
            await _use(vault, conn, region, approval, now, until)
            return True
    return False


def _end_of(day: str) -> datetime | None:
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + DAY
    except ValueError:
        return None


async def _use(
    vault: Vault, conn: Connection, region: str, approval: UUID, now: datetime, until: datetime
) -> None:
    named = f"approval/{approval}"
    intent = own_intent(vault, Action.EXPIRY_RESUME, region, reason="agreed", reference=named)
    await vault.recorder.append_many([intent])
    await approvals_sql.set_used(conn, approval, now)
    await limits_sql.set_agreed(conn, region, now, until)
    await log_sql.insert_records(conn, [Access(vault, intent).conclude()])
