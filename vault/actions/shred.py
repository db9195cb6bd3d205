"""
Shred: put a document beyond use on request.

Its data key leaves the tree in the same transaction that says so and records it. It is
irrecoverable once the generation that knew it is destroyed; see `actions/seal.py`. A floor of the
policy and a hold refuse it, whoever asks, and the refusal is recorded with its ground. What goes by
itself is the business of `actions/expire.py`.
"""

from enum import StrEnum
from uuid import UUID

from vault.actions.access import Access, recorded
from vault.actions.policy import in_force
from vault.actions.signal import tell
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import Custody, Document
from vault.domain.kept_words import check_shred_reason
from vault.domain.retention import Verdict, floor_sentence, judge
from vault.domain.signals import SignalType, document_signal
from vault.errors import FloorError, HeldError, NotFoundError
from vault.sql import documents as documents_sql
from vault.sql import log as log_sql
from vault.sql import policies as policies_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction


class Ground(StrEnum):
    """Why somebody asks that a document is shredded; GDPR art. 17(1) where it has a letter."""

    NOT_NEEDED = "no-longer-needed"
    WITHDRAWN = "consent-withdrawn"
    OBJECTION = "objection"
    UNLAWFUL = "unlawfully-processed"
    OBLIGATION = "legal-obligation"
    MISTAKE = "sent-by-mistake"


async def shred(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    reason: str,
    ground: Ground = Ground.NOT_NEEDED,
) -> Document:
    """Shred one document; safe to repeat. Raises `FloorError` and `HeldError`."""
    said = check_shred_reason(reason)
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_SHRED,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
        basis=ground.value,
    ) as access:
        if document is None:
            raise NotFoundError
        async with transaction(vault.pool) as conn:
            await policies_sql.freeze(conn)
            await retention_sql.freeze_holds(conn, document.region)
            found = await retention_sql.lock_judged(conn, identity)
            if found is None:
                raise NotFoundError
            document = found.document
            if document.custody is Custody.STORED:
                current = await in_force(vault, conn)
                verdict = judge(found.facts, current.policy, current.grace)
                _check(vault, verdict, len(found.facts.holds))
                access.size_bytes = document.size_bytes
                document = await _shred_one(
                    vault, conn, access, document, said, ground, verdict, current.version
                )
            await log_sql.insert_records(conn, [access.conclude()])
        return document


def _check(vault: Vault, verdict: Verdict, holds: int) -> None:
    if holds:
        raise HeldError(
            f"{'a hold keeps' if holds == 1 else f'{holds} holds keep'} this document; it can be "
            "shredded once every hold on it is released"
        )
    if verdict.floor_at is None or verdict.floor_at > vault.clock():
        raise FloorError(floor_sentence(verdict))


async def _shred_one(
    vault: Vault,
    conn: Connection,
    access: Access,
    document: Document,
    reason: str,
    ground: Ground,
    verdict: Verdict,
    policy: int,
) -> Document:
    generation = await vault.keyring.destroy_keys(conn, document.region, [document.id])
    shredded = await documents_sql.set_shredded(
        conn,
        [document.id],
        reasons=[reason],
        rules=[verdict.rule.row],
        ground=ground.value,
        policy=policy,
        principal=access.intent.principal,
        last_generation=generation,
        now=vault.clock(),
    )
    told = document_signal(SignalType.SHREDDED, shredded[0], vault.clock(), ground=ground.value)
    await tell(vault, conn, [told])
    return shredded[0]
