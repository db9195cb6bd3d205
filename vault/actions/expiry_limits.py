"""
What keeps a wrong clock from shredding what is kept.

Three things are asked before anything goes by its time. Is this clock ahead of the database's? Has
it jumped since the worker last looked, which is all that can be seen where both are on one machine?
And is more due within a day than a share of what is kept, or of the faxes that came? What the last
two stop, two people let go on: one asks for `expiry.resume` with a day as its subject, somebody
else agrees, and until the end of that day whatever is due goes. That they are two is asked again
when their approval is used.
"""

import logging
import math
from datetime import UTC, datetime, timedelta

from vault.actions.access import Access, own_intent
from vault.config import Config
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.approvals import Act, Approval, check_use
from vault.domain.text import said_time
from vault.errors import BulkExpiryError, ClockError, DoubtError, ForbiddenError
from vault.sql import access as access_sql
from vault.sql import approvals as approvals_sql
from vault.sql import expiry as expiry_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection

log = logging.getLogger(__name__)

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
    looked = await expiry_sql.looked(conn, region)
    if ahead := _ahead(vault.config, looked, now):
        raise ClockError(ahead)
    jumped = _jumped(vault.config, looked, region, now)
    if jumped and not await is_agreed(vault, conn, region, now):
        raise ClockError(jumped)
    if looked.seen_at is None or now - looked.seen_at > NOTED_EVERY:
        await expiry_sql.set_seen(conn, region, now)
    return now


async def check_doubt(vault: Vault, conn: Connection, region: str, now: datetime) -> None:
    """Raise `DoubtError` where a restore left something in doubt, until two people have agreed."""
    looked = await expiry_sql.looked(conn, region)
    doubt = _in_doubt(looked, region, now)
    if doubt is None:
        return
    if not await is_agreed(vault, conn, region, now):
        raise DoubtError(doubt)
    await expiry_sql.end_doubt(conn, region)


async def check_bulk(vault: Vault, conn: Connection, region: str, now: datetime) -> None:
    """Raise `BulkExpiryError` where more is due than may go within a day, and nobody agreed."""
    many = await _many_documents(vault.config, conn, region, now)
    if many and not await is_agreed(vault, conn, region, now):
        raise BulkExpiryError(many)


async def check_bulk_of_faxes(vault: Vault, conn: Connection, region: str, now: datetime) -> None:
    """Raise `BulkExpiryError` where more faxes are due than may go in a day, and nobody agreed."""
    many = await _many_faxes(vault.config, conn, region, now)
    if many and not await is_agreed(vault, conn, region, now):
        raise BulkExpiryError(many)


async def why_stopped(config: Config, conn: Connection, region: str, now: datetime) -> str | None:
    """Return why the worker lets nothing go by its time, or not all of it; None where it does."""
    looked = await expiry_sql.looked(conn, region)
    if ahead := _ahead(config, looked, now):
        return ahead
    if looked.agreed_until is not None and now <= looked.agreed_until:
        return None
    if jumped := _jumped(config, looked, region, now):
        return jumped
    stopped = (
        _in_doubt(looked, region, now),
        await _many_documents(config, conn, region, now),
        await _many_faxes(config, conn, region, now),
    )
    return "; ".join(one for one in stopped if one) or None


def _ahead(config: Config, looked: expiry_sql.Looked, now: datetime) -> str | None:
    ahead = (now - looked.database_at).total_seconds()
    if ahead <= config.clock_ahead_seconds_max:
        return None
    return (
        f"this machine's clock is {ahead:.0f} s ahead of the database's; nothing is shredded by it "
        "until they agree: set both by NTP"
    )


def _jumped(config: Config, looked: expiry_sql.Looked, region: str, now: datetime) -> str | None:
    if looked.seen_at is None:
        return None
    step = (now - looked.seen_at).total_seconds()
    if step <= config.clock_step_seconds_max:
        return None
    return (
        f"this machine's clock says {now:%Y-%m-%d}, {step / 86400:.0f} days after the worker last "
        f"looked at {region}; nothing is shredded by it. Set the clock right, or, if it is right, "
        f"{_resume(region, now)}"
    )


def _in_doubt(looked: expiry_sql.Looked, region: str, now: datetime) -> str | None:
    if looked.doubt is None:
        return None
    return (
        f"since a restore it is not known in {region} what was decided by {looked.doubt}; no "
        "document is shredded by its time. Decide it again (`portvault restore` said what to do), "
        f"then {_resume(region, now)}"
    )


async def _many_documents(
    config: Config, conn: Connection, region: str, now: datetime
) -> str | None:
    due, lately = await expiry_sql.due_and_lately(conn, region, now, now - DAY)
    if due + lately <= config.expire_documents_min:
        return None
    # Of all that was kept a day ago.
    wanted = math.ceil((due + lately) / config.expire_share_max) - lately
    if await expiry_sql.keeps(conn, region, wanted):
        return None
    return (
        f"{due} documents are due in {region} and {lately} went within a day, more than "
        f"{config.expire_share_max:.0%} of what is kept; nothing is shredded by its time. Look at "
        f"the clock and the policy; if all is right, {_resume(region, now)}"
    )


async def _many_faxes(config: Config, conn: Connection, region: str, now: datetime) -> str | None:
    before = overdue_before(config, now)
    due, lately = await expiry_sql.faxes_due_and_lately(conn, region, before, now - DAY)
    if due == 0 or due + lately <= config.expire_documents_min:
        return None
    wanted = math.ceil((due + lately) / config.expire_share_max)
    if await expiry_sql.came(conn, region, before - DAY, wanted):
        return None
    return (
        f"the time of {due} faxes in {region} is over and {lately} expired within a day, more than "
        f"{config.expire_share_max:.0%} of those that came since {said_time(before - DAY)}"
        "; none is shredded by its time. Look at the clock and at why they are not delivered; "
        f"if all is right, {_resume(region, now)}"
    )


def overdue_before(config: Config, now: datetime) -> datetime:
    """Return when faxes came whose time in custody is over now."""
    return now - timedelta(seconds=config.fax_custody_seconds_max)


def _resume(region: str, now: datetime) -> str:
    return f"have two people agree to expiry.resume of {now:%Y-%m-%d} in {region}"


async def is_agreed(vault: Vault, conn: Connection, region: str, now: datetime) -> bool:
    """Whether two people have agreed that what is due goes today; uses their approval up."""
    looked = await expiry_sql.looked(conn, region)
    if looked.agreed_until is not None and now <= looked.agreed_until:
        return True
    for approval in await approvals_sql.unused(conn, Act.EXPIRY_RESUME, region, now):
        until = _end_of(approval.terms.subject)
        # Not for a clock that says another day than they saw.
        if until is not None and until - DAY <= now < until and await _by_two(conn, approval, now):
            await _use(vault, conn, region, approval, now, until)
            return True
    return False


async def _by_two(conn: Connection, approval: Approval, now: datetime) -> bool:
    """Whether two people agreed by all that is known of them now, who opened what included."""
    asked, agreed = approval.requested_by, approval.approved_by
    lineage = await access_sql.find_lineage(
        conn, [one for one in (asked, agreed) if one is not None]
    )
    try:
        check_use(approval, approval.terms, asked, lineage, now)
    except ForbiddenError as error:
        log.warning("approval %s is good for nothing: %s", approval.id, error)
        return False
    return True


def _end_of(day: str) -> datetime | None:
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + DAY
    except ValueError:
        return None


async def _use(
    vault: Vault, conn: Connection, region: str, approval: Approval, now: datetime, until: datetime
) -> None:
    named = f"approval/{approval.id}"
    intent = own_intent(vault, Action.EXPIRY_RESUME, region, reason="agreed", reference=named)
    await vault.recorder.append_many([intent])
    await approvals_sql.set_used(conn, approval.id, now)
    await expiry_sql.set_agreed(conn, region, now, until)
    await log_sql.insert_records(conn, [Access(vault, intent).conclude()])
