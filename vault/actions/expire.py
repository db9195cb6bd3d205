"""
Expire: shred what retention says is due, and nothing else.

What is due follows from the rows alone. `due_at` says where to look; the rule is asked again under
locks that keep the order, the holds and the document as they are, so running this twice, on several
machines, or after a crash shreds nothing early and nothing twice. A look at nothing costs the same
however many documents there are.
"""

from uuid import UUID

from vault.actions.access import Access, own_intent
from vault.actions.expiry_limits import DAY, check_bulk, check_doubt, trusted_time
from vault.actions.policy import InForce, in_force
from vault.actions.signal import tell
from vault.context import Vault
from vault.domain.access import WORKER_ROLE, Action
from vault.domain.certificates import RETENTION
from vault.domain.documents import Document
from vault.domain.records import Record
from vault.domain.retention import State, Verdict, judge
from vault.domain.signals import SignalType, document_signal
from vault.sql import documents as documents_sql
from vault.sql import expiry as expiry_sql
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, transaction
from vault.sql.retention import Judged

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
