"""
Ingest: take a document of an order into custody.

The order's region is known or looked up; then one commit records the intent and announces the
upload, if the order takes it. How its bytes come into custody is told in `receive`.
"""

import hashlib
import hmac
import time
import unicodedata
from collections.abc import AsyncIterator
from uuid import UUID

from vault.actions.access import recorded
from vault.actions.once import (
    LEFT,
    KeyEndedError,
    KeyReusedError,
    NoLongerComparableError,
    Once,
    key_ended,
)
from vault.actions.receive import Upload, receive, too_large
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import HEAD_BYTES, Document, Kind
from vault.domain.records import Record
from vault.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidRequestError,
    NotFoundError,
    TruncatedUploadError,
)
from vault.sql import documents as documents_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import connection
from vault.sql.intake import Announced, Announcement

FILENAME_LENGTH_MAX = 255


async def ingest(
    vault: Vault,
    principal: Principal,
    order: UUID,
    kind: Kind,
    upload: Upload,
    *,
    idempotency_key: str | None = None,
) -> Document:
    """
    Take the upload into custody; durable and readable when this returns.

    Where the Idempotency-Key brought a document that lives, that one is returned. Raises
    `KeyReusedError` where this is another one, and `KeyEndedError` where the earlier one has ended
    and its row shows no difference.
    """
    asked = ["document", str(order), kind.value, upload.media_type, upload.filename]
    once = Once(principal, idempotency_key, asked)
    identity, announced = vault.new_id(), Announced(accepted=False)

    async def begin(intent: Record) -> None:
        nonlocal announced
        # The upload is announced in the commit that makes its intent durable.
        announced = await vault.announcer.submit(
            Announcement(intent, identity, order, kind.value, once.wanted)
        )

    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_INGEST,
        region=await _region_of(vault, order),
        order=order,
        document=identity,
        kind=kind.value,
        begin=begin,
    ) as access:
        if announced.earlier:
            try:
                await once.check(vault, _bounded(vault, upload.body))
            except NoLongerComparableError:
                raise await _refusal(vault, principal, order, upload, announced.earlier) from None
            return await _find(vault, announced.earlier)
        if not announced.accepted:
            raise ConflictError(
                "the order is closed; it takes no more documents. One that was ported is reopened "
                "by its reversal (move it to exception); else open a new order"
            )
        return await receive(vault, access, upload, kind=kind, scope=order, once=once)


async def _refusal(
    vault: Vault, principal: Principal, order: UUID, upload: Upload, resource: UUID
) -> KeyEndedError | KeyReusedError:
    """
    Return why an upload is not taken whose Idempotency-Key brought a document without data key.

    The body is read to its end, and not kept: what the row of the earlier document still says (its
    order, media type and size) may tell the two apart. Its kind may not: that can be corrected.
    """
    try:
        earlier = await _find(vault, resource)
    except NotFoundError:
        # It is no document.
        return KeyReusedError()
    head, size, digest = b"", 0, hashlib.sha256()
    async for chunk in _bounded(vault, upload.body):
        head += chunk[: HEAD_BYTES - len(head)]
        size += len(chunk)
        digest.update(chunk)
    if upload.size_bytes is not None and size != upload.size_bytes:
        raise TruncatedUploadError
    if upload.sha256 is not None and not hmac.compare_digest(digest.digest(), upload.sha256):
        raise DigestMismatchError
    media_type = await vault.sniffer.sniff(head, sender=principal.id) if head else None
    if (order, size, media_type) != (earlier.order_id, earlier.size_bytes, earlier.media_type):
        return KeyReusedError()
    if earlier.left_at is not None:
        return key_ended(
            "document", earlier.id, state=LEFT, ended_at=earlier.left_at, result=None, lost=True
        )
    if earlier.shredded_at is not None:
        return key_ended(
            "document",
            earlier.id,
            state=earlier.custody.value,
            ended_at=earlier.shredded_at,
            result=earlier.shred_reason,
        )
    return KeyReusedError()


async def _bounded(vault: Vault, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes a second time, of which there may be as much as the first time."""
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > vault.config.document_bytes_max:
            raise too_large(vault.config.document_bytes_max)
        yield chunk


async def _region_of(vault: Vault, order: UUID) -> str | None:
    """Return the order's region, which never changes; None when there is no such order."""
    if known := vault.order_regions.find(order):
        return known
    async with connection(vault.pool) as conn:
        found = await orders_sql.find(conn, order)
    if found is None:
        return None
    vault.order_regions.keep(order, found.region, time.monotonic())
    return found.region


async def _find(vault: Vault, identity: UUID) -> Document:
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    if document is None:
        raise NotFoundError
    return document


def check_filename(filename: str | None) -> str | None:
    """Return the last part of the name the client gave; raises when it is not a name."""
    if filename is None:
        return None
    name = filename.replace("\\", "/").rpartition("/")[2]
    # A space of any width is printed, too: macOS writes U+202F before AM and PM.
    printed = all(c.isprintable() or unicodedata.category(c) == "Zs" for c in name)
    name = name.strip()
    if not name or len(name) > FILENAME_LENGTH_MAX or not printed:
        raise InvalidRequestError(
            f"the file name must have 1 to {FILENAME_LENGTH_MAX} printable characters"
        )
    return name
