"""
Certify: issue what says that a document, or all documents of an order, are gone.

A certificate is issued once the document is sealed and purged, and the records of its arrival and
shred are under a published checkpoint of the log, which it carries. That it was issued is a record,
too, which names it by its digest: so the log anchors it. Certificates stay when everything else is
gone.
"""

from uuid import UUID

from keys.keyring import KeyStatus
from vault.actions.access import Access, own_intent
from vault.actions.policy import policy_used
from vault.actions.signal import tell
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.certificates import (
    Evidence,
    certificate_text,
    note_digest,
    order_certificate_text,
)
from vault.domain.documents import Document
from vault.domain.signals import SignalType, document_signal
from vault.sql import certificates as certificates_sql
from vault.sql import log as log_sql
from vault.sql import log_published as published_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection, connection, transaction

CERTIFY_BATCH = 200


async def certify(vault: Vault, region: str) -> int:
    """Issue certificates for what is sealed and purged; each document gets exactly one."""
    async with connection(vault.pool) as conn:
        # What is not published could be rolled back, and would then convict the log of a fork.
        published = await published_sql.published_note(conn, region)
        if published is None:
            return 0
        documents = await certificates_sql.uncertified(conn, region, published[0], CERTIFY_BATCH)
        if not documents:
            return 0
        status = await vault.keyring.status(conn, region)
    for document in documents:
        async with transaction(vault.pool) as conn:
            # Whoever certifies another document of the order waits, and then sees this one.
            await orders_sql.find(conn, document.order_id, lock=True)
            await _issue(vault, conn, document, status, published)
            await issue_for_order(vault, conn, document.order_id)
    return len(documents)


async def _issue(
    vault: Vault,
    conn: Connection,
    document: Document,
    status: KeyStatus,
    published: tuple[int, str],
) -> None:
    size, checkpoint = published
    indices = await certificates_sql.log_indices(conn, document.id, size)
    now = vault.clock()
    evidence = Evidence(
        custodian=status.custodian,
        destroy_level=status.destroy_level,
        destroy_promise=status.destroy_promise,
        policy=await policy_used(vault, conn, document) if document.retention_row else None,
        log_indices=tuple(indices),
        checkpoint=checkpoint,
    )
    note = vault.signer.sign(certificate_text(document, evidence, now))
    if await certificates_sql.insert(conn, document.id, document.region, note, now):
        await _record(vault, conn, note, document.region, document.order_id, document)
        await tell(vault, conn, [document_signal(SignalType.SEALED, document, now)])


async def issue_for_order(vault: Vault, conn: Connection, identity: UUID) -> str | None:
    """Issue the order's certificate when it is due, and return it; the order is locked."""
    order = await orders_sql.find(conn, identity, lock=True)
    if order is None:
        return None
    if note := await certificates_sql.find_of_order(conn, identity):
        return note
    if order.ended_at is None or await certificates_sql.uncertified_of_order(conn, identity):
        return None
    issued = await certificates_sql.issued_of_order(conn, identity)
    if not issued:
        return None
    now = vault.clock()
    note = vault.signer.sign(order_certificate_text(order, issued, now))
    await certificates_sql.insert_of_order(conn, identity, order.region, note, now)
    await _record(vault, conn, note, order.region, identity, None)
    return note


async def _record(
    vault: Vault,
    conn: Connection,
    note: str,
    region: str,
    order: UUID | None,
    document: Document | None,
) -> None:
    intent = own_intent(
        vault,
        Action.CERTIFICATE_ISSUE,
        region,
        reason="sealed",
        document=document.id if document else None,
        order=order,
        kind=document.kind.value if document else None,
        reference=note_digest(note),
    )
    await log_sql.insert_records(conn, [intent, Access(vault, intent).conclude()])
