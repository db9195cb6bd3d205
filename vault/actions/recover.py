"""
Recover: bring back, in a restore, what came after the backup: orders and their documents.

The bucket has the object and, in the copy of the key tree, the key; the log says order, kind and
times. Each document is opened before its row is written, so what is brought back can be read. What
was said of it in its row alone is not known any more, and is named.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import WrappedKey
from keys.stream import CHUNK_BYTES, HEADER_BYTES, TAG_BYTES, DataKey, ciphertext_size
from vault.actions.access import Access
from vault.actions.fax_intake import check_fax
from vault.actions.policy import fax_custody_of
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.documents import (
    FAX,
    HEAD_BYTES,
    OBJECTS_PREFIX,
    Custody,
    Kind,
    metadata_context,
    object_name,
    stream_context,
)
from vault.domain.faxes import (
    UNKNOWN_NUMBER,
    Channel,
    Direction,
    Fax,
    Numbers,
    State,
    encode_numbers,
)
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
from vault.errors import (
    ContentRefusedError,
    ObjectMissingError,
    TooLargeError,
    UnsupportedTypeError,
)
from vault.sql import orders as orders_sql
from vault.sql import recover as recover_sql
from vault.sql.connection import Connection
from vault.sql.recover import LostDocument, LostFax, LostOrder

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
        # Encrypted anew without anything in it, so that it is corrected and goes like any other.
        key = await vault.keyring.open_key_within(conn, lost.key)
        details = key.encrypt(encode_details(Details((), None)), details_context(region, lost.id))
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
    encrypted = bytearray()
    async with vault.stores[region].get(object_name(identity), length=_FIRST_BYTES) as chunks:
        async for chunk in chunks:
            encrypted += chunk
    decryptor = key.decryptor(stream_context(region, identity))
    head = decryptor.update(bytes(encrypted))
    if len(encrypted) == ciphertext_size(size):
        head += decryptor.finalize()
    if not head:
        raise IntegrityError
    media_type = await vault.sniffer.sniff(head[:HEAD_BYTES], sender="restore")
    return _Opened(media_type, size, bytes(encrypted[:HEADER_BYTES]))


def plaintext_size(ciphertext_bytes: int) -> int | None:
    """Return what an object of this size holds; None when no stream has this size."""
    encrypted = ciphertext_bytes - HEADER_BYTES
    pieces = (encrypted - TAG_BYTES) // (CHUNK_BYTES + TAG_BYTES) + 1
    size = encrypted - TAG_BYTES * pieces
    return size if size >= 0 and ciphertext_size(size) == ciphertext_bytes else None


# ---- Recover faxes, in a restore: those that came after the backup, and what became of all of
# them.
#
# A fax that waits is opened as a whole and looked at as when it came. Its numbers were in its row
# alone: so it is shown to no gateway that sends and not relayed, but fetched by a person, who sees
# on it whom it is for. A fax that ended leaves its receipt. An attempt to deliver that no record
# says the end of may have succeeded, and that is said.

#: Whose turn it is in the sandbox.
RESTORE = "restore"
NOT_KNOWN = ("direction", "channel", "from", "to", "facts")
FAX_ENDED_NOT_KNOWN = (*NOT_KNOWN, "media_type", "pages", "stream_header", "result")
UNKNOWN_TYPE = "application/octet-stream"
MAYBE_DELIVERED = "tried after the backup; it may have been delivered"
#: What is said of a fax in the backup that was tried since.
AGAIN = f"{MAYBE_DELIVERED}, and is tried again: it may arrive twice"
FAX_ENDED = "ended after the backup that was restored"
_STATES = {
    Action.FAX_DELIVER: State.DELIVERED,
    Action.FAX_FAIL: State.FAILED,
    Action.FAX_EXPIRE: State.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class RecoveredFaxes:
    """What the log is to say of faxes that are here again, and of each what there is to say."""

    records: tuple[Record, ...]
    details: dict[UUID, str]


async def recover_faxes(
    access: Access, conn: Connection, region: str, generation: int
) -> RecoveredFaxes:
    """Bring back faxes and receipts that have no row, in the caller's transaction."""
    vault, records, details = access.vault, list[Record](), dict[UUID, str]()
    for identity in await recover_sql.note_attempts(conn, region, MAYBE_DELIVERED):
        details[identity] = AGAIN
    for lost in await recover_sql.lost(conn, region, OBJECTS_PREFIX):
        fax: Fax | str = _receipt(vault, lost, generation)
        if lost.key is not None:
            fax = await _waiting(vault, conn, lost, lost.key)
        if isinstance(fax, str):
            details[lost.id] = f"stored after the backup: {fax}"
            continue
        await recover_sql.insert(conn, fax, lost.principal)
        if fax.custody is Custody.STORED:
            custody = await fax_custody_of(vault.config, conn, region)
            details[lost.id] = _what_to_do(fax, fax.received_at + custody.keep_max)
        said = replace(access.note("recovered"), document=lost.id, kind=FAX)
        records.append(said)
    return RecoveredFaxes(tuple(records), details)


def _what_to_do(fax: Fax, goes_at: datetime) -> str:
    tried = f"; {fax.result}" if fax.result else ""
    return (
        f"stored after the backup: it is here again, but whom it is for is not known{tried}. Fetch "
        f"`/v1/faxes/{fax.id}/content` with a token of the role fax-gateway, deliver it by hand, "
        f"and say so at `/v1/faxes/{fax.id}/actions/deliver` before {goes_at:%Y-%m-%d %H:%M} UTC, "
        "when its time is over"
    )


def _receipt(vault: Vault, lost: LostFax, generation: int) -> Fax:
    """Return what is left of a fax that has ended."""
    state = _STATES[Action(lost.ending or Action.FAX_EXPIRE)]
    fax = _fax(vault, lost, UNKNOWN_TYPE, 0, b"", FAX_ENDED_NOT_KNOWN)
    return replace(
        fax,
        state=state,
        custody=Custody.SHREDDED,
        result=FAX_ENDED,
        ended_at=lost.ended_at,
        last_generation=generation,
    )


async def _waiting(vault: Vault, conn: Connection, lost: LostFax, wrapped: WrappedKey) -> Fax | str:
    """Return a fax that waits, or why it cannot be brought back."""
    key = await open_lost_key(vault, conn, wrapped)
    if isinstance(key, str):
        return key
    if lost.object_bytes is None:
        return "its object is missing"
    size = plaintext_size(lost.object_bytes)
    if size is None or lost.size_bytes not in (None, size):
        return "its object is not of the size that was recorded"
    if size > vault.config.fax_bytes_max:
        return "it is larger than the setting fax_bytes_max"
    try:
        header, data = await _content(vault, lost, key)
        media_type, checked = await check_fax(vault, data, sender=RESTORE)
    except (IntegrityError, ObjectMissingError):
        return "its object does not open"
    except (ContentRefusedError, UnsupportedTypeError, TooLargeError) as error:
        return f"it is not taken for a fax: {error}"
    numbers = encode_numbers(Numbers(UNKNOWN_NUMBER, UNKNOWN_NUMBER))
    encrypted = key.encrypt(numbers, metadata_context(lost.region, lost.id))
    fax = _fax(vault, lost, media_type, checked.pages, header, NOT_KNOWN)
    return replace(fax, metadata=encrypted, size_bytes=len(data))


async def _content(vault: Vault, lost: LostFax, key: DataKey) -> tuple[bytes, bytes]:
    """Return what the object begins with, and what it holds; raises `IntegrityError`."""
    whole = ciphertext_size(vault.config.fax_bytes_max)
    encrypted = bytearray()
    async with vault.stores[lost.region].get(object_name(lost.id)) as chunks:
        async for chunk in chunks:
            encrypted += chunk
            if len(encrypted) > whole:
                raise IntegrityError("the object is longer than it was")
    decryptor = key.decryptor(stream_context(lost.region, lost.id))
    data = decryptor.update(bytes(encrypted)) + decryptor.finalize()
    return bytes(encrypted[:HEADER_BYTES]), data


def _fax(
    vault: Vault,
    lost: LostFax,
    media_type: str,
    pages: int,
    header: bytes,
    not_known: tuple[str, ...],
) -> Fax:
    now: datetime = vault.clock()
    return Fax(
        id=lost.id,
        region=lost.region,
        direction=Direction.INBOUND,
        channel=Channel.GATEWAY,
        state=State.QUEUED if lost.attempts else State.RECEIVED,
        custody=Custody.STORED,
        media_type=media_type,
        size_bytes=lost.size_bytes or 0,
        pages=pages,
        stream_header=header,
        metadata=None,
        caller_masked=None,
        callee_masked=UNKNOWN_NUMBER,
        facts={},
        attempts=lost.attempts,
        next_attempt_at=now,
        result=MAYBE_DELIVERED if lost.doubtful else None,
        received_at=lost.received_at,
        ended_at=None,
        last_generation=None,
        purged_at=None,
        sealed_at=None,
        recovered_at=now,
        not_known=list(not_known),
    )
