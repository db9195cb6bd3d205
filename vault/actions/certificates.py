"""
Certify: issue what says that a document, or all documents of an order, are gone.

A certificate is issued once the document is sealed and purged, and the records of its arrival and
shred are under a published checkpoint of the log, which it carries. That it was issued is a record,
too, which names it by its digest: so the log anchors it. Certificates stay when everything else is
gone.
"""

from dataclasses import dataclass
from uuid import UUID

from keys.damage import DamagedError
from keys.keyring import KeyStatus
from vault.actions.access import Access, own_intent, recorded
from vault.actions.log_prove import proof_under
from vault.actions.policy import policy_used
from vault.actions.retention import standing_of
from vault.actions.signals import tell
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.certificates import (
    Evidence,
    certificate_text,
    note_digest,
    order_certificate_text,
)
from vault.domain.documents import Custody, Document
from vault.domain.records import canonical_bytes
from vault.domain.signals import SignalType, document_signal
from vault.errors import ConflictError, NotFoundError, ObjectStoreUnavailableError
from vault.sql import certificates as certificates_sql
from vault.sql import documents as documents_sql
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


# ---- Certificate: hand out the signed statement that a document was destroyed. ------------------
#
# With it comes what anchors it: the log's record that names it by its digest, and the proof that
# this record is under a published checkpoint. Whoever has all three needs nobody to verify them.


@dataclass(frozen=True, slots=True)
class Anchor:
    """The canonical record that names a certificate, and its inclusion proof (C2SP tlog-proof)."""

    record: str
    proof: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate; `anchor` is None until its record is published, and while the log is away."""

    note: str
    anchor: Anchor | None


_SHREDDED_FIRST = "its certificate is issued once it was shredded and sealed"
_HELD = "a hold keeps its object from being purged; its certificate is issued after the release"
#: When a certificate comes that is not there yet. Marks follow a seal by some seconds.
_TO_COME = {
    Custody.RECEIVING: _SHREDDED_FIRST,
    Custody.STORED: _SHREDDED_FIRST,
    Custody.SHREDDED: "its certificate is being issued if the region was sealed since, and else "
    "comes with the next seal; ask again in some seconds",
    Custody.SEALED: "its certificate is being issued; ask again in some seconds",
}


async def certificate(vault: Vault, principal: Principal, identity: UUID) -> Shown:
    """Return the signed note; raises `ConflictError` while there is none yet, and says why."""
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.CERTIFICATE_READ,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
    ):
        if document is None:
            raise NotFoundError
        async with connection(vault.pool) as conn:
            note = await certificates_sql.find(conn, identity)
        if note is None:
            when = _TO_COME[document.custody]
            if document.shredded_at is not None and document.purged_at is None:
                standing = await standing_of(vault, principal, document)
                when = _HELD if standing.held else when
            raise ConflictError(f"the document is {document.custody}; {when}")
        return Shown(note, await _anchor(vault, document.region, identity, note))


async def order_certificate(vault: Vault, principal: Principal, identity: UUID) -> Shown:
    """Return the signed note that all documents of an order are gone; issues it if it is due."""
    async with connection(vault.pool) as conn:
        order = await orders_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.CERTIFICATE_READ_ORDER,
        region=order.region if order else None,
        order=identity,
    ):
        async with transaction(vault.pool) as conn:
            note = await issue_for_order(vault, conn, identity)
            waiting = await certificates_sql.uncertified_of_order(conn, identity)
        if note is None:
            raise ConflictError(
                f"{waiting} documents of this order have no certificate yet; the order's own is "
                "issued when it has ended and every document is sealed"
            )
        region = order.region if order else vault.config.regions[0]
        return Shown(note, await _anchor(vault, region, identity, note))


async def _anchor(vault: Vault, region: str, thing: UUID, note: str) -> Anchor | None:
    async with connection(vault.pool) as conn:
        found = await certificates_sql.issue_record(conn, thing, note_digest(note))
        published = await published_sql.published_note(conn, region)
    if found is None or published is None or found[0] >= published[0]:
        return None
    try:
        proof = await proof_under(vault, region, found[0], *published)
    except (ObjectStoreUnavailableError, DamagedError):
        # The certificate is still there when all else is gone.
        return None
    return Anchor(canonical_bytes(found[1]).decode(), proof)
