"""
Certificate: hand out the signed statement that a document was destroyed.

With it comes what anchors it: the log's record that names it by its digest, and the proof that this
record is under a published checkpoint. Whoever has all three needs nobody to verify them.
"""

from dataclasses import dataclass
from uuid import UUID

from keys.damage import DamagedError
from vault.actions.access import recorded
from vault.actions.certify import issue_for_order
from vault.actions.prove import proof_under
from vault.actions.standing import standing_of
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.certificates import note_digest
from vault.domain.documents import Custody
from vault.domain.records import canonical_bytes
from vault.errors import ConflictError, NotFoundError, ObjectStoreUnavailableError
from vault.sql import certificates as certificates_sql
from vault.sql import documents as documents_sql
from vault.sql import log_published as published_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import connection, transaction


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
