"""
Read: hand out a document, but only after the record of who asks and why is durable.

The order never changes: load, decide, record, and only then unwrap. A stream whose end does not
verify raises instead of ending, so that no reader takes a cut or altered document for whole.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from keys.errors import StaleScopeError
from keys.stream import DataKey
from vault.actions.access import Access, recorded
from vault.actions.approvals import is_approved, use
from vault.actions.outgoing import Outgoing
from vault.actions.published_first import wait_published
from vault.actions.standing import Standing, standing_of
from vault.actions.stored_object import Stored, open_metadata, open_object, without_key
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Custody, Document
from vault.domain.records import encode_receipt, receipt_of
from vault.errors import (
    ConflictError,
    LeftBehindError,
    NotFoundError,
    RestrictedError,
    ShreddedError,
)
from vault.sql import documents as documents_sql
from vault.sql.connection import connection, transaction

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Content:
    """An open document: its row, its file name, its receipt, and its bytes as they are opened."""

    document: Document
    filename: str | None
    receipt: str
    chunks: Outgoing


@asynccontextmanager
async def open_content(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    *,
    purpose: str | None,
    reference: str | None,
    approval: UUID | None = None,
) -> AsyncIterator[Content]:
    """
    Open a document for a stated purpose; the outcome says how many bytes were handed out.

    An `approval` of its disclosure is used up when nothing else can refuse any more, and before the
    first byte: a document that cannot be read leaves it as good as it was.
    """
    document = (await vault.finder.submit(identity)).document
    region = document.region if document else ""
    terms = Terms(Act.DISCLOSURE, str(identity), region, purpose, reference)
    agreed = await is_approved(vault, principal, approval, terms)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_READ,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
        custody=document.custody if document else None,
        restricted=document is not None and document.restricted_at is not None,
        purpose=purpose,
        reference=reference,
        approved=agreed,
    ) as access:
        # So an outcome before the first piece says that nothing went out.
        access.size_bytes = 0
        was_restricted = document is not None and document.restricted_at is not None
        document, key = await _unwrap(access, identity)
        if document.restricted_at is not None and not was_restricted:
            # It was restricted after this was decided; asked again, the policy says who may.
            raise RestrictedError
        filename = open_filename(key, document)
        async with open_object(vault, Stored.of(document), key) as opened:
            chunks = Outgoing(access, opened)
            if agreed and approval:
                async with transaction(vault.pool) as conn:
                    await use(access, conn, approval, terms)
                await wait_published(access)
            try:
                receipt = encode_receipt(receipt_of(access.intent))
                yield Content(document, filename, receipt, chunks)
            finally:
                await chunks.aclose()


@dataclass(frozen=True, slots=True)
class Description:
    """What is known about a document without opening its content."""

    document: Document
    filename: str | None
    standing: Standing


async def describe(vault: Vault, principal: Principal, identity: UUID) -> Description:
    """Return what is known about a document, and its file name to those who may read it."""
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_DESCRIBE,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
    ) as access:
        if document is None:
            raise NotFoundError
        standing = await standing_of(vault, principal, document)
        # The file name is personal; compliance sees that a document is there, not what it says.
        if document.metadata is None or not access.names:
            return Description(document, None, standing)
        try:
            document, key = await _unwrap(access, identity)
        except (ShreddedError, LeftBehindError):
            return Description(document, None, standing)
        return Description(document, open_filename(key, document), standing)


async def _unwrap(access: Access, identity: UUID) -> tuple[Document, DataKey]:
    for _ in range(ATTEMPTS):
        found = await access.vault.finder.submit(identity)
        if found.document is None:
            raise NotFoundError
        if found.key is None and found.document.custody is Custody.STORED:
            # It was not shredded: that would have taken its key and said so in one commit.
            raise without_key(found.document)
        if found.key is None:
            raise ShreddedError
        try:
            key = await access.unwrap(found.key, order=found.document.order_id)
            return found.document, key
        except StaleScopeError:
            continue
    raise ConflictError("the region's keys are being sealed; try again")


def open_filename(key: DataKey, document: Document) -> str | None:
    """Return the file name sealed with the document."""
    if document.metadata is None:
        return None
    filename: str | None = open_metadata(key, Stored.of(document), json.loads)["filename"]
    return filename
