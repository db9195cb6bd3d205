"""
Read: hand out a document, but only after the record of who asks and why is durable.

The order never changes: load, decide, record, and only then unwrap. A stream whose end does not
verify raises instead of ending, so that no reader takes a cut or altered document for whole.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from keys import damage
from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError
from keys.stream import HEADER_BYTES, DataKey, ciphertext_size
from vault.actions.access import Access, recorded
from vault.actions.approvals import unapproved, use
from vault.actions.log_publish import wait_published
from vault.actions.retention import Standing, standing_of
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Custody, Document, metadata_context, object_name, stream_context
from vault.domain.faxes import Fax
from vault.domain.records import encode_receipt, receipt_of
from vault.errors import (
    LeftBehindError,
    NotFoundError,
    ObjectMissingError,
    RestrictedError,
    ShreddedError,
)
from vault.sql import documents as documents_sql
from vault.sql.connection import connection, transaction

# ---- What lies in the store for a document or a fax, opened: its bytes as they verify, or what is
# wrong.
#
# Every read compares what the object begins with, its salt and the commitment to its key, with
# what its row says: a row that was altered is found as an object that was.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the row of a document or a fax says of its object and of its encrypted metadata."""

    table: str
    id: UUID
    region: str
    stream_header: bytes | None
    size_bytes: int | None
    metadata: bytes | None

    @classmethod
    def of(cls, thing: Document | Fax) -> "Stored":
        """Return what a row says."""
        table = "fax" if isinstance(thing, Fax) else "document"
        header, size, metadata = thing.stream_header, thing.size_bytes, thing.metadata
        return cls(table, thing.id, thing.region, header, size, metadata)

    def damaged(self, detail: str, column: str) -> DamagedError:
        """Return the error for a column of the row."""
        return damaged(Damage(self.region, detail, self.table, str(self.id), column))

    def object_damaged(self, detail: str) -> DamagedError:
        """Return the error for the object."""
        return damaged(Damage(self.region, detail, object=object_name(self.id)))


def damaged(damage: Damage) -> DamagedError:
    """Return the error for one thing that is damaged."""
    return DamagedError("something is damaged", [damage])


def lost_key(region: str, identity: UUID) -> DamagedError:
    """Return the error for a key that is not there, of something that was not shredded."""
    return damaged(damage.lost(region, identity))


def without_key(thing: Document | Fax) -> DamagedError | LeftBehindError:
    """Return the error for what is in custody and has no key: a restore left it, or it was lost."""
    if thing.left_at is None:
        return lost_key(thing.region, thing.id)
    return LeftBehindError(
        f"a restore left this behind on {thing.left_at:%Y-%m-%d}: nobody shredded it, and the root "
        "key that its key hung on was destroyed by the seal of a restore"
    )


def open_metadata(key: DataKey, stored: Stored, decode: Callable[[bytes], T]) -> T:
    """Decrypt the metadata of a row; raises `DamagedError` where it does not open."""
    with _or_damaged(
        Damage(stored.region, "does not open", stored.table, str(stored.id), "metadata")
    ):
        context = metadata_context(stored.region, stored.id)
        return decode(key.decrypt(stored.metadata or b"", context))


@contextmanager
def _or_damaged(damage: Damage) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise damaged(damage) from None


@asynccontextmanager
async def open_object(
    vault: Vault, stored: Stored, key: DataKey
) -> AsyncIterator[AsyncIterator[bytes]]:
    """
    Open the object for reading; its pieces are yielded as they verify.

    Raises `DamagedError` where the object is missing; the pieces raise it instead of ending when it
    is cut, altered, not as long as its row says, or does not begin as its row says.
    """
    try:
        async with vault.stores[stored.region].get(object_name(stored.id)) as encrypted:
            yield decrypted(stored, key, encrypted)
    except ObjectMissingError:
        raise stored.object_damaged("is missing") from None


async def decrypted(
    stored: Stored, key: DataKey, encrypted: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield a stream decrypted, as its chunks verify; raises `DamagedError` as said above."""
    decryptor = key.decryptor(stream_context(stored.region, stored.id))
    head: bytes | None = b""
    whole, read, size, wrong = ciphertext_size(stored.size_bytes or 0), 0, 0, "does not open"
    try:
        async for chunk in encrypted:
            read += len(chunk)
            if head is not None:
                head += chunk
                if len(head) < HEADER_BYTES:
                    continue
            opened = decryptor.update(chunk if head is None else head)
            if head is not None and head[:HEADER_BYTES] != stored.stream_header:
                # The object's own beginning has verified, so it is the row that is wrong.
                raise stored.damaged("is not what its object begins with", "stream_header")
            if opened:
                size += len(opened)
                yield opened
            head = None
        if read != whole:
            wrong = f"has {read} bytes, where {whole} were written"
        last = decryptor.finalize()
    except IntegrityError as error:
        if isinstance(error, DamagedError):
            raise
        raise stored.object_damaged(wrong) from None
    if size + len(last) != stored.size_bytes:
        raise stored.damaged(f"says {stored.size_bytes} bytes, of {size + len(last)}", "size_bytes")
    if last:
        yield last


# ---- What goes out: the one way in which content, faxes and exports leave as a stream. ----------
#
# An `Outgoing` is made of an access that is watched while it flows (`vault/process/streams.py`),
# and every entrance hands out nothing else as a stream, so that no stream can be forgotten.


class Outgoing:
    """Pieces on their way out: counted, and each one asked for anew before it goes."""

    def __init__(self, access: Access, pieces: AsyncIterator[bytes]) -> None:
        if access.stream is None:
            raise TypeError(f"{access.intent.action} is not among the streams that are watched")
        access.size_bytes = 0
        self._access, self._pieces = access, _counted(access, pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def whole(self) -> bytes:
        """Return all of it, verified to its end; where that fails, nothing has gone out."""
        try:
            return b"".join([piece async for piece in self._pieces])
        except BaseException:
            self._access.size_bytes = 0
            raise

    async def aclose(self) -> None:
        """Let go of what the pieces come from."""
        await self._pieces.aclose()


async def _counted(access: Access, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        await access.renew()
        yield piece
        access.size_bytes = (access.size_bytes or 0) + len(piece)


# ---- Read. --------------------------------------------------------------------------------------


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
    document = (await vault.committer.submit(documents_sql.FIND, identity)).document
    region = document.region if document else ""
    terms = Terms(Act.DISCLOSURE, str(identity), region, purpose, reference)
    why = await unapproved(vault, principal, approval, terms) if approval else None
    agreed = approval is not None and why is None
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
        unapproved=why,
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


@retried
async def _unwrap(access: Access, identity: UUID) -> tuple[Document, DataKey]:
    found = await access.vault.committer.submit(documents_sql.FIND, identity)
    if found.document is None:
        raise NotFoundError
    if found.key is None and found.document.custody is Custody.STORED:
        # It was not shredded: that would have taken its key and said so in one commit.
        raise without_key(found.document)
    if found.key is None:
        raise ShreddedError
    key = await access.unwrap(found.key, order=found.document.order_id)
    return found.document, key


def open_filename(key: DataKey, document: Document) -> str | None:
    """Return the file name that is encrypted with the document."""
    if document.metadata is None:
        return None
    filename: str | None = open_metadata(key, Stored.of(document), json.loads)["filename"]
    return filename
