"""
Ingest: take a document into custody.

One pass over the body: recognised by its first bytes, counted, encrypted under a key of its own and
stored, 64 KiB at a time. The key exists only in memory until the last byte is stored; then one
transaction makes the document `stored`, keeps its wrapped key and records the outcome. Whatever
goes wrong before that drops the key, and what lies in the store can never be decrypted.
"""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from keys.errors import StaleScopeError
from keys.keyring import WrappedKey
from keys.stream import HEADER_BYTES, DataKey, ciphertext_size
from vault.actions.access import Access, recorded
from vault.actions.collect import drop_upload
from vault.actions.once import Once
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import (
    MEDIA_TYPES,
    Document,
    Kind,
    metadata_context,
    object_name,
    stream_context,
)
from vault.domain.media import HEAD_BYTES, check_type
from vault.errors import (
    ConflictError,
    ContentRefusedError,
    DigestMismatchError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    TruncatedUploadError,
    UnsupportedTypeError,
    VaultError,
)
from vault.sql import documents as documents_sql
from vault.sql import log as log_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import connection, transaction

log = logging.getLogger(__name__)

ATTEMPTS = 5
FILENAME_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """What the client sends; everything but `body` is only what it says."""

    body: AsyncIterator[bytes]
    media_type: str | None
    filename: str | None
    size_bytes: int | None
    #: SHA-256 of the whole content, where the client sent Content-Digest.
    sha256: bytes | None


class Measured:
    """The body as it passes: counted against its limits, hashed only where a digest was sent."""

    def __init__(self, upload: Upload, size_max: int) -> None:
        self.size_bytes = 0
        self._upload = upload
        self._size_max = size_max
        self._hash = hashlib.sha256() if upload.sha256 else None

    async def pass_through(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the body's chunks; raises at the end unless all that was declared is true."""
        async for chunk in body:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._size_max:
                raise too_large(self._size_max)
            if self._hash:
                self._hash.update(chunk)
            yield chunk
        declared = self._upload.size_bytes
        if declared is not None and self.size_bytes != declared:
            raise TruncatedUploadError
        if self._hash and not hmac.compare_digest(self._hash.digest(), self._upload.sha256 or b""):
            raise DigestMismatchError


def too_large(size_max: int) -> TooLargeError:
    """Return the refusal that names the limit."""
    return TooLargeError(f"a document may have at most {size_max} bytes")


async def ingest(
    vault: Vault,
    principal: Principal,
    order: UUID,
    kind: Kind,
    upload: Upload,
    *,
    idempotency_key: str | None = None,
) -> Document:
    """Take the upload into custody; durable and readable when this returns."""
    asked = repr((order, kind, upload.size_bytes, upload.sha256, upload.media_type))
    once = Once(principal, idempotency_key, hashlib.sha256(asked.encode()).digest())
    async with connection(vault.pool) as conn:
        found = await orders_sql.find(conn, order)
    region = found.region if found else None
    identity = vault.new_id()
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_INGEST,
        region=region,
        order=order,
        document=identity,
        kind=kind.value,
    ) as access:
        if region is None:
            raise NotFoundError
        if earlier := await once.earlier(vault):
            return await _find(vault, earlier)
        size_max = vault.config.document_bytes_max
        if upload.size_bytes is not None and upload.size_bytes > size_max:
            raise too_large(size_max)
        media_type, body = await _recognise(vault, kind, upload)
        async with connection(vault.pool) as conn:
            now = vault.clock()
            if not await documents_sql.insert_receiving(conn, identity, order, kind, now):
                raise ConflictError("the order is closed; it takes no more documents")
        try:
            return await _receive(vault, access, once, upload, media_type, body)
        except BaseException:
            await _drop(vault, access)
            raise


async def _recognise(vault: Vault, kind: Kind, upload: Upload) -> tuple[str, AsyncIterator[bytes]]:
    """Name the type by the first bytes and hold it against the kind and what was declared."""
    head = b""
    while len(head) < HEAD_BYTES:
        chunk = await anext(upload.body, b"")
        if not chunk:
            break
        head += chunk
    if not head:
        raise ContentRefusedError("the document is empty")
    media_type = await vault.sniffer.sniff(head[:HEAD_BYTES])
    if media_type not in MEDIA_TYPES[kind]:
        raise UnsupportedTypeError(
            f"the file is {media_type}; a {kind.value} must be one of "
            + ", ".join(sorted(MEDIA_TYPES[kind]))
        )
    check_type(upload.media_type, upload.filename, media_type)
    return media_type, _chain(head, upload.body)


async def _chain(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


async def _receive(
    vault: Vault,
    access: Access,
    once: Once,
    upload: Upload,
    media_type: str,
    body: AsyncIterator[bytes],
) -> Document:
    region, identity = access.intent.region, _identity(access)
    order = access.intent.order or identity
    key, wrapped = await vault.keyring.new_key(region, order, identity)
    measured = Measured(upload, vault.config.document_bytes_max)
    header = bytearray()
    size = None if upload.size_bytes is None else ciphertext_size(upload.size_bytes)
    # A crash from here on leaves an object whose key was never stored; the collector purges it.
    await vault.stores[region].put(
        object_name(identity),
        _encrypt(key, stream_context(region, identity), measured.pass_through(body), header),
        size_bytes=size,
    )
    access.size_bytes = measured.size_bytes
    metadata = key.seal(_encode_metadata(upload.filename), metadata_context(region, identity))
    for _ in range(ATTEMPTS):
        try:
            return await _keep(
                vault, access, once, wrapped, media_type, measured, bytes(header), metadata
            )
        except StaleScopeError:
            access.concluded = False
            wrapped = await vault.keyring.rewrap(key, wrapped)
    raise ConflictError("the region's keys are being sealed; try again")


async def _keep(
    vault: Vault,
    access: Access,
    once: Once,
    wrapped: WrappedKey,
    media_type: str,
    measured: Measured,
    header: bytes,
    metadata: bytes,
) -> Document:
    """Document, key and record together; this commit is the acknowledgement."""
    async with transaction(vault.pool) as conn:
        document = await documents_sql.set_stored(
            conn,
            wrapped.id,
            media_type=media_type,
            size_bytes=measured.size_bytes,
            stream_header=header,
            metadata=metadata,
            now=vault.clock(),
        )
        if document is None:
            raise ConflictError("the upload took too long and was swept up; send it again")
        await vault.keyring.insert_key(conn, wrapped)
        await once.claim(conn, wrapped.id, vault.clock())
        await log_sql.insert_records(conn, [access.conclude()])
    return document


async def _encrypt(
    key: DataKey, context: bytes, body: AsyncIterator[bytes], header: bytearray
) -> AsyncIterator[bytes]:
    """Yield the Cobblestone stream and keep its header, which identifies the object for ever."""
    encryptor = key.encryptor(context)
    async for chunk in body:
        sealed = encryptor.update(chunk)
        if len(header) < HEADER_BYTES:
            header += sealed[: HEADER_BYTES - len(header)]
        if sealed:
            yield sealed
    sealed = encryptor.finalize()
    if len(header) < HEADER_BYTES:
        header += sealed[: HEADER_BYTES - len(header)]
    yield sealed


async def _drop(vault: Vault, access: Access) -> None:
    """Purge what arrived, as far as that can be done now; the collector does the rest later."""
    try:
        async with asyncio.timeout(vault.config.store_timeout_seconds):
            await asyncio.shield(drop_upload(vault, access.intent.region, _identity(access)))
    except (VaultError, TimeoutError):
        log.info("upload %s is left for the collector", _identity(access))


async def _find(vault: Vault, identity: UUID) -> Document:
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    if document is None:
        raise NotFoundError
    return document


def _identity(access: Access) -> UUID:
    if access.intent.document is None:
        raise NotFoundError
    return access.intent.document


def _encode_metadata(filename: str | None) -> bytes:
    return json.dumps({"filename": filename}).encode()


def check_filename(filename: str | None) -> str | None:
    """Return the last part of the name the client gave; raises when it is not a name."""
    if filename is None:
        return None
    name = filename.replace("\\", "/").rpartition("/")[2].strip()
    if not name or len(name) > FILENAME_LENGTH_MAX or not name.isprintable():
        raise InvalidRequestError(
            f"the file name must have 1 to {FILENAME_LENGTH_MAX} printable characters"
        )
    return name
