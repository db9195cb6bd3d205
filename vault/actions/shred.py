"""
Shred: put documents beyond use.

Their data keys leave the tree in the same transaction that says so and records it. They are
irrecoverable once the generation that knew them is destroyed; see `actions/seal.py`.
"""

from collections import defaultdict
from uuid import UUID

from vault.actions.access import Access, recorded
from vault.context import Vault
from vault.domain.access import WORKER_ROLE, Action, Principal
from vault.domain.documents import Custody, Document
from vault.domain.records import Record
from vault.domain.retention import Rule
from vault.errors import ConflictError, InvalidRequestError, NotFoundError
from vault.sql import documents as documents_sql
from vault.sql import log as log_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection, connection, transaction

REASON_LENGTH_MAX = 200
EXPIRE_BATCH = 500


async def shred(vault: Vault, principal: Principal, identity: UUID, reason: str) -> Document:
    """Shred one document on request; safe to repeat. Raises `ConflictError` under its floor."""
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
        raise InvalidRequestError(
            f"give a reason of 1 to {REASON_LENGTH_MAX} printable characters, without names"
        )
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
    ) as access:
        async with transaction(vault.pool) as conn:
            document = await documents_sql.find(conn, identity, lock=True)
            if document is None:
                raise NotFoundError
            if document.custody is Custody.STORED:
                await _check_floor(vault, conn, document)
                access.size_bytes = document.size_bytes
                document = await _shred_one(vault, conn, access, document, reason)
            await log_sql.insert_records(conn, [access.conclude()])
        return document


async def _shred_one(
    vault: Vault, conn: Connection, access: Access, document: Document, reason: str
) -> Document:
    generation = await vault.keyring.destroy_keys(conn, document.region, [document.id])
    shredded = await documents_sql.set_shredded(
        conn,
        [document.id],
        reason=reason.strip(),
        principal=access.intent.principal,
        last_generation=generation,
        now=vault.clock(),
    )
    return shredded[0]


async def _check_floor(vault: Vault, conn: Connection, document: Document) -> None:
    rule = vault.policy[document.kind, document.region]
    if not rule.keep_min:
        return
    order = await orders_sql.find(conn, document.order_id)
    ended_at = order.ended_at if order else None
    if ended_at is None:
        raise ConflictError(f"kept until {rule.keep_min.days} days after the port: {rule.citation}")
    if rule.floor_at(ended_at) > vault.clock():
        until = rule.floor_at(ended_at).date().isoformat()
        raise ConflictError(f"kept until {until}: {rule.citation}")


async def expire(vault: Vault, region: str) -> int:
    """
    Shred what retention says is due, a batch at a time; returns how many documents.

    What is due is derived from the rows alone and checked again under their locks, so running this
    twice, or on several machines, or after a crash, shreds nothing early and nothing twice.
    """
    rules = [rule for (_, where), rule in vault.policy.items() if where == region]
    async with transaction(vault.pool) as conn:
        found = await _due(vault, conn, region, rules, None)
    if not found:
        return 0
    intents = {document.id: _intent(vault, document) for document in found}
    await vault.recorder.append_many(list(intents.values()))
    async with transaction(vault.pool) as conn:
        due = await _due(vault, conn, region, rules, list(intents))
        await _shred_due(vault, conn, region, due)
        # A document that somebody else shredded meanwhile ends its intent without effect.
        done = {document.id for document in due}
        outcomes = [
            Access(vault, intent).conclude(reason=None if identity in done else "not-due")
            for identity, intent in intents.items()
        ]
        await log_sql.insert_records(conn, outcomes)
    return len(due)


async def _due(
    vault: Vault, conn: Connection, region: str, rules: list[Rule], only: list[UUID] | None
) -> list[Document]:
    return await documents_sql.due(
        conn,
        region,
        rules,
        now=vault.clock(),
        grace_seconds=vault.config.reversal_grace_seconds,
        limit=EXPIRE_BATCH,
        only=only,
    )


async def _shred_due(vault: Vault, conn: Connection, region: str, due: list[Document]) -> None:
    if not due:
        return
    generation = await vault.keyring.destroy_keys(conn, region, [item.id for item in due])
    by_kind: dict[str, list[UUID]] = defaultdict(list)
    for document in due:
        by_kind[document.kind].append(document.id)
    for kind, documents in by_kind.items():
        await documents_sql.set_shredded(
            conn,
            documents,
            reason=f"retention: {kind}, order ended",
            principal="worker",
            last_generation=generation,
            now=vault.clock(),
        )


def _intent(vault: Vault, document: Document) -> Record:
    return Record(
        id=vault.new_id(),
        region=document.region,
        at=vault.clock(),
        phase="intent",
        principal="worker",
        role=WORKER_ROLE,
        action=Action.DOCUMENT_SHRED.value,
        document=document.id,
        order=document.order_id,
        kind=document.kind.value,
        decision="allow",
        reason="retention",
    )
