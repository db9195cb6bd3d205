"""
Expire: shred what retention says is due, and nothing else.

What is due follows from the rows alone. `due_at` says where to look; the rule is asked again under
locks that keep the order, the holds and the document as they are, so running this twice, on several
machines, or after a crash shreds nothing early and nothing twice. A look at nothing costs the same
however many documents there are.
"""

import logging
import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

from vault.actions.access import Access, own_intent
from vault.actions.policy import InForce, fax_custody_of, in_force
from vault.actions.signals import tell
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import WORKER_ROLE, Action
from vault.domain.approvals import Act, Approval, check_use
from vault.domain.certificates import RETENTION
from vault.domain.documents import Document
from vault.domain.limits import first_counting
from vault.domain.records import Record
from vault.domain.retention import State, Verdict, judge
from vault.domain.signals import SignalType, document_signal
from vault.domain.text import said_time
from vault.errors import BulkExpiryError, ClockError, DoubtError, ForbiddenError
from vault.sql import access as access_sql
from vault.sql import approvals as approvals_sql
from vault.sql import documents as documents_sql
from vault.sql import expiry as expiry_sql
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, transaction
from vault.sql.retention import Judged

# ---- What keeps a wrong clock from shredding what is kept. --------------------------------------
#
# Three things are asked before anything goes by its time. Is this clock ahead of the database's?
# Has it jumped since the worker last looked, which is all that can be seen where both are on one
# machine? And is more due within a day than a share of what is kept, or of the faxes that came?
# What the last two stop, two people let go on: one asks for `expiry.resume` with a day as its
# subject, somebody else agrees, and until the end of that day whatever is due goes. That they are
# two is asked again when their approval is used.

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
    before = now - (await fax_custody_of(config, conn, region)).keep_max
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


# ---- Expire. ------------------------------------------------------------------------------------

REVIEW_BATCH = 2000
EXPIRE_BATCH = 1000
GROUND = "retention"


async def expire(vault: Vault, region: str) -> int:
    """Review what changed, then shred a batch of what is due; returns how many documents."""
    reviewed = await review(vault, region)
    return reviewed + await shred_due(vault, region)


async def review(vault: Vault, region: str) -> int:
    """Ask the rule anew about documents of which something changed; returns how many."""
    async with transaction(vault.pool) as conn:
        current = await in_force(vault, conn)
        found = await retention_sql.lock_unreviewed(conn, region, current.version, REVIEW_BATCH)
        if found:
            verdicts = [judge(item.facts, current.policy, current.grace) for item in found]
            await retention_sql.set_reviewed(
                conn,
                [item.document.id for item in found],
                [verdict.due_at for verdict in verdicts],
                current.version,
            )
            await _tell_reviewed(vault, conn, found, verdicts)
    return len(found)


async def _tell_reviewed(
    vault: Vault, conn: Connection, found: list[Judged], verdicts: list[Verdict]
) -> None:
    """Tell of new documents and of new conflicts; what was told before is not told again."""
    now = vault.clock()
    signals = [
        document_signal(SignalType.STORED, item.document, now)
        for item in found
        if item.document.reviewed == 0
    ]
    for item, verdict in zip(found, verdicts, strict=True):
        if verdict.state is State.CONFLICT and item.facts.instruction is not None:
            about = str(item.facts.instruction.id)
            signals.append(
                document_signal(
                    SignalType.CONFLICT, item.document, now, about=about, instruction=about
                )
            )
    await tell(vault, conn, signals)


async def shred_due(vault: Vault, region: str) -> int:
    """Shred a batch of what is due; raises what `expiry_limits` says where it must not."""
    async with transaction(vault.pool) as conn:
        now = await trusted_time(vault, conn, region)
        await check_doubt(vault, conn, region, now)
        await retention_sql.freeze_policy(conn)
        current = await in_force(vault, conn)
        await retention_sql.freeze_holds(conn, region)
        await check_bulk(vault, conn, region, now)
        found = await retention_sql.lock_due(conn, region, current.version, now, EXPIRE_BATCH)
        if not found:
            return 0
        verdicts = {
            item.document.id: judge(item.facts, current.policy, current.grace) for item in found
        }
        due, later = list[Document](), list[UUID]()
        for item in found:
            at = verdicts[item.document.id].due_at
            if at is not None and at <= now:
                due.append(item.document)
            else:
                later.append(item.document.id)
        if later:
            # Something changed since the review; a hold has no time to wait for.
            times = [verdicts[identity].due_at for identity in later]
            await retention_sql.set_reviewed(conn, later, times, current.version)
        if due:
            await expiry_sql.note(conn, region, now, now - DAY, len(due))
            await _shred(vault, conn, current, due, verdicts)
    return len(found)


async def _shred(
    vault: Vault,
    conn: Connection,
    current: InForce,
    due: list[Document],
    verdicts: dict[UUID, Verdict],
) -> None:
    """
    Destroy, record and mark, while the rows stay locked; all but the intents at the commit.

    The intents are durable before it. Keys that cannot be destroyed leave none behind.
    """
    identities = [document.id for document in due]
    generation = await vault.keyring.destroy_keys(conn, due[0].region, identities)
    intents = [_intent(vault, document) for document in due]
    # A crash from here on leaves intents without an outcome, which are closed as interrupted.
    await vault.recorder.append_many(intents)
    await documents_sql.set_shredded(
        conn,
        identities,
        reasons=[_reason(document, verdicts[document.id]) for document in due],
        rules=[verdicts[document.id].rule.row for document in due],
        ground=GROUND,
        policy=current.version,
        principal=WORKER_ROLE,
        last_generation=generation,
        now=vault.clock(),
    )
    await log_sql.insert_records(conn, [Access(vault, intent).conclude() for intent in intents])
    now = vault.clock()
    told = [document_signal(SignalType.SHREDDED, item, now, ground=GROUND) for item in due]
    await tell(vault, conn, told)


def _reason(document: Document, verdict: Verdict) -> str:
    return f"{RETENTION}{document.kind} after {verdict.rule.event}, row {verdict.rule.row}"


def _intent(vault: Vault, document: Document) -> Record:
    return own_intent(
        vault,
        Action.DOCUMENT_SHRED,
        document.region,
        reason=GROUND,
        document=document.id,
        order=document.order_id,
        kind=document.kind.value,
    )


# ---- Forget: rows whose time is over go, whoever made them and whether or not anybody asks again.


async def forget_expired(vault: Vault, region: str) -> int:
    """Sweep every table of `sql/expiry`; returns how many rows went. No region has its own."""
    if region != vault.config.regions[0]:
        return 0
    now = vault.clock()
    cutoffs = expiry_sql.Cutoffs(
        now,
        now - timedelta(days=vault.config.approval_kept_days),
        now - timedelta(days=vault.config.signal_kept_days),
    )
    async with transaction(vault.pool) as conn:
        await access_sql.forget_usage(conn, first_counting(now))
        return await expiry_sql.sweep(conn, cutoffs)
