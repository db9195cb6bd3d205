"""
Recover: bring back, in a restore, what came after the backup: orders and their documents.

The bucket has the object and, in the copy of the key tree, the key; the log says order, kind and
times. Each document is opened before its row is written, so what is brought back can be read. What
was said of it in its row alone is not known any more, and is named.
"""

import asyncio
from dataclasses import dataclass, replace
from uuid import UUID

from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import WrappedKey
from keys.stream import CHUNK_BYTES, HEADER_BYTES, TAG_BYTES, DataKey, ciphertext_size
from vault.actions.access import Access
from vault.context import Vault
from vault.domain.documents import HEAD_BYTES, OBJECTS_PREFIX, Kind, object_name, stream_context
from vault.domain.orders import (
    DESK,
    UNKNOWN_CUSTOMER,
    Details,
    OrderEvent,
    Status,
    details_context,
    encode_details,
)
from vault.domain.records import Record
from vault.errors import ObjectMissingError
from vault.sql import orders as orders_sql
from vault.sql import recover as recover_sql
from vault.sql.connection import Connection
from vault.sql.recover import LostDocument, LostOrder

#: Objects whose first pieces are fetched at the same time.
AT_ONCE = 32
#: Two whole pieces: the first has verified then.
_FIRST_BYTES = HEADER_BYTES + 2 * (CHUNK_BYTES + TAG_BYTES)
DOCUMENT_NOT_KNOWN = ("filename",)
ENDED_NOT_KNOWN = (
    "filename",
    "media_type",
    "stream_header",
    "shred_reason",
    "policy",
    "replaced_by",
)
ENDED = "stored and shredded after the backup that was restored"
ORDER_NOT_KNOWN = (
    "customer",
    "numbers",
    "customer_reference",
    "type",
    "losing_carrier",
    "gaining_carrier",
)


@dataclass(frozen=True, slots=True)
class OrderLine:
    """An order that was opened after the backup: `recovered`, or `lost`."""

    order: UUID
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was brought back, what the log is to say of it, and why documents were not: details."""

    orders: tuple[OrderLine, ...]
    records: tuple[Record, ...]
    details: dict[UUID, str]


@dataclass(frozen=True, slots=True)
class _Opened:
    media_type: str
    size_bytes: int
    stream_header: bytes


async def recover(access: Access, conn: Connection, region: str, generation: int) -> Recovered:
    """
    Bring back orders and documents that have no row, in the caller's transaction.

    Of documents that were shredded since only the row comes back, to be sealed after `generation`.
    """
    vault = access.vault
    documents = await recover_sql.documents(conn, region, OBJECTS_PREFIX)
    ended = await recover_sql.ended_documents(conn, region)
    named = [item.order for item in documents] + [item.order for item in ended]
    times = [item.received_at for item in documents] + [item.received_at for item in ended]
    lines, records, details = list[OrderLine](), list[Record](), dict[UUID, str]()
    needed = {item.order for item in ended}
    for order in await recover_sql.orders(conn, region, named, times):
        line = await _bring_back_order(vault, conn, region, order, needed=order.id in needed)
        lines.append(line)
        if line.state == "recovered":
            records.append(_said(access, order=order.id))
    for first in range(0, len(documents), AT_ONCE):
        batch = documents[first : first + AT_ONCE]
        keys = [await open_lost_key(vault, conn, item.key) for item in batch]
        found = await asyncio.gather(
            *(_open(vault, item, key) for item, key in zip(batch, keys, strict=True))
        )
        for item, opened in zip(batch, found, strict=True):
            if isinstance(opened, str):
                details[item.key.id] = f"stored after the backup: {opened}"
                continue
            await recover_sql.insert_document(
                conn,
                item,
                media_type=opened.media_type,
                size_bytes=opened.size_bytes,
                stream_header=opened.stream_header,
                now=vault.clock(),
                not_known=DOCUMENT_NOT_KNOWN,
            )
            said = _said(access, document=item.key.id, order=item.order, kind=item.kind)
            records.append(said)
    for gone in ended:
        await recover_sql.insert_ended(
            conn,
            gone,
            reason=ENDED,
            generation=generation,
            now=vault.clock(),
            not_known=ENDED_NOT_KNOWN,
        )
        records.append(_said(access, document=gone.id, order=gone.order, kind=gone.kind))
    return Recovered(tuple(lines), tuple(records), details)


def _said(
    access: Access, *, order: UUID, document: UUID | None = None, kind: str | None = None
) -> Record:
    return replace(access.note("recovered"), document=document, order=order, kind=kind)


async def _bring_back_order(
    vault: Vault, conn: Connection, region: str, lost: LostOrder, *, needed: bool
) -> OrderLine:
    """Bring an order back; where its key is lost only when shredded documents `needed` it."""
    detail = "opened after the backup: its customer and its details are not known"
    if not lost.has_scope and lost.forgotten_at is None:
        detail = "opened after the last copy of the key tree: open it again"
        if not needed:
            return OrderLine(lost.id, "lost", detail)
        detail += "; it is here for its shredded documents only"
    details, now = None, vault.clock()
    if lost.key is not None:
        # Sealed anew without anything in it, so that it is corrected and goes like any other.
        key = await vault.keyring.open_key_within(conn, lost.key)
        details = key.seal(encode_details(Details((), None)), details_context(region, lost.id))
    await recover_sql.insert_order(
        conn,
        lost.id,
        region,
        customer=UNKNOWN_CUSTOMER,
        status=Status.DRAFT.value,
        details=details,
        created_at=lost.created_at,
        details_gone_at=None if details else lost.forgotten_at or now,
        now=now,
        not_known=ORDER_NOT_KNOWN,
    )
    opened = OrderEvent(DESK, str(lost.id), Status.DRAFT, lost.created_at)
    await orders_sql.insert_event(conn, lost.id, opened, now)
    return OrderLine(lost.id, "recovered", detail)


async def open_lost_key(vault: Vault, conn: Connection, wrapped: WrappedKey) -> DataKey | str:
    """Return the key, or why it cannot be had."""
    try:
        return await vault.keyring.open_key_within(conn, wrapped)
    except (IntegrityError, StaleScopeError):
        return "its key does not open"


async def _open(vault: Vault, lost: LostDocument, key: DataKey | str) -> _Opened | str:
    """Return what its object says of it, or why it cannot be brought back."""
    if isinstance(key, str):
        return key
    if lost.kind not in set(Kind):
        return f"the log calls it {lost.kind}, which is no kind of document"
    if lost.object_bytes is None:
        return "its object is missing"
    size = plaintext_size(lost.object_bytes)
    if size is None or lost.size_bytes not in (None, size):
        return "its object is not of the size that was recorded"
    try:
        return await _first_piece(vault, lost, key, size)
    except (IntegrityError, ObjectMissingError):
        return "its object does not open"


async def _first_piece(vault: Vault, lost: LostDocument, key: DataKey, size: int) -> _Opened:
    region, identity = lost.key.region, lost.key.id
    sealed = bytearray()
    async with vault.stores[region].get(object_name(identity), length=_FIRST_BYTES) as chunks:
        async for chunk in chunks:
            sealed += chunk
    decryptor = key.decryptor(stream_context(region, identity))
    head = decryptor.update(bytes(sealed))
    if len(sealed) == ciphertext_size(size):
        head += decryptor.finalize()
    if not head:
        raise IntegrityError
    media_type = await vault.sniffer.sniff(head[:HEAD_BYTES], sender="restore")
    return _Opened(media_type, size, bytes(sealed[:HEADER_BYTES]))


def plaintext_size(ciphertext_bytes: int) -> int | None:
    """Return what an object of this size holds; None when no stream has this size."""
    sealed = ciphertext_bytes - HEADER_BYTES
    pieces = (sealed - TAG_BYTES) // (CHUNK_BYTES + TAG_BYTES) + 1
    size = sealed - TAG_BYTES * pieces
    return size if size >= 0 and ciphertext_size(size) == ciphertext_bytes else None
