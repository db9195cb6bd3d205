"""
Ingest: take a document of an order into custody.

The order's region is known or looked up; then one commit records the intent and announces the
upload, if the order takes it. How its bytes come into custody is told in `receive`.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from keys.errors import StaleScopeError
from keys.keyring import WrappedKey
from keys.stream import HEADER_BYTES, DataKey, ciphertext_size
from vault.actions.access import Access, recorded
from vault.actions.bucket import PURGE_SECONDS
from vault.actions.once import (
    LEFT,
    KeyEndedError,
    KeyReusedError,
    NoLongerComparableError,
    Once,
    key_ended,
)
from vault.actions.retry import retried
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import (
    HEAD_BYTES,
    MEDIA_TYPES,
    Document,
    Kind,
    check_type,
    metadata_context,
    object_name,
    stream_context,
)
from vault.domain.records import Record
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
from vault.sql import orders as orders_sql
from vault.sql.connection import connection, transaction
from vault.sql.intake import ANNOUNCE, KEEP, Announced, Announcement, Keeping

# ---- Receive: the bytes of an upload that was announced, and its custody; for any kind of
# document.
#
# One pass over the body: recognised by its first bytes, counted, encrypted under a key of its own
# and stored as it comes. The key exists only in memory until the last byte is stored; then one
# statement makes the document `stored`, keeps its wrapped key and records the outcome, and shares
# its commit with others. Whatever goes wrong before that drops the key, and what lies in the store
# can never be decrypted.

log = logging.getLogger(__name__)

#: What a store keeps in memory of a body whose length it knows, and else.
GATHERED_BYTES, GATHERED_BYTES_MAX = 512 * 1024, 5 * 1024 * 1024


class Pace:
    """How fast somebody sends a body: what it may take to come, apart from what we take for it."""

    def __init__(self, config: Config) -> None:
        self._config, self._waited_seconds, self._size_bytes = config, 0.0, 0
        self._give_up_at = time.monotonic() + config.receiving_seconds_max

    async def within(self, receiving: Callable[[float], Awaitable[bytes]]) -> bytes:
        """Return what comes; raises `TruncatedUploadError` when nothing does, or too slowly."""
        config, began = self._config, time.monotonic()
        if began > self._give_up_at:
            raise TruncatedUploadError(
                f"it was not here in whole after {config.receiving_seconds_max:g} seconds"
            )
        try:
            received = await receiving(config.upload_idle_seconds)
        except TimeoutError:
            raise TruncatedUploadError(
                f"nothing came for {config.upload_idle_seconds:g} seconds"
            ) from None
        # Only the sender's time counts, not what the store takes for what came.
        self._waited_seconds += time.monotonic() - began
        self.add(len(received))
        return received

    def add(self, size_bytes: int) -> None:
        """Count bytes; raises where a sender holds its place with some that come now and then."""
        self._size_bytes += size_bytes
        counted = self._waited_seconds - self._config.upload_idle_seconds
        if counted > 0 and self._size_bytes < counted * self._config.upload_bytes_per_second_min:
            raise TruncatedUploadError(
                f"it came with less than {self._config.upload_bytes_per_second_min} bytes a second"
            )


@dataclass(frozen=True, slots=True)
class Upload:
    """What the client sends; everything but `body` is only what it says."""

    body: AsyncIterator[bytes]
    media_type: str | None
    filename: str | None
    size_bytes: int | None
    #: SHA-256 of the whole content, where the client sent Content-Digest.
    sha256: bytes | None


def too_large(size_max: int) -> TooLargeError:
    """Return the refusal that names the limit."""
    return TooLargeError(
        f"a document may have at most {size_max} bytes: scan it at 300 dpi, or in grey, or send "
        "its pages as several documents"
    )


async def receive(
    vault: Vault, access: Access, upload: Upload, *, kind: Kind, scope: UUID, once: Once
) -> Document:
    """
    Take the announced upload into custody; durable and readable when this returns.

    Its data key goes under `scope`. When it fails, nothing is left that could be decrypted, and
    what was announced is withdrawn at once or, where that cannot be, by the collector.
    """
    arrival = _Arrival(vault, access, upload, scope, once)
    declared = upload.size_bytes
    gathered = GATHERED_BYTES_MAX if declared is None else min(declared, GATHERED_BYTES)
    try:
        with vault.memory.share(gathered):
            return await arrival.take(kind)
    except BaseException:
        await arrival.drop()
        raise


class _Arrival:
    """One upload on its way into custody."""

    def __init__(
        self, vault: Vault, access: Access, upload: Upload, scope: UUID, once: Once
    ) -> None:
        if access.intent.document is None:
            raise NotFoundError
        self._identity, self._region = access.intent.document, access.intent.region
        self._vault, self._access, self._upload = vault, access, upload
        self._scope, self._once = scope, once
        self._storing = self._wrapped = False

    async def take(self, kind: Kind) -> Document:
        """Recognise, encrypt, store and keep."""
        size_max, size = self._vault.config.document_bytes_max, self._upload.size_bytes
        if size is not None and size > size_max:
            raise too_large(size_max)
        media_type, head = await self._recognise(kind)
        key, wrapped = await self._vault.keyring.new_key(self._region, self._scope, self._identity)
        encryption = _Encryption(
            key,
            stream_context(self._region, self._identity),
            size_max,
            self._once.begin(key),
        )
        # A crash from here on leaves an object whose key was never stored; the collector purges it.
        self._storing = True
        await self._vault.stores[self._region].put(
            object_name(self._identity),
            encryption.pass_through(head, self._upload),
            size_bytes=None if size is None else ciphertext_size(size),
        )
        self._access.size_bytes = encryption.size_bytes
        return await self._keep(key, wrapped, media_type, encryption)

    async def _recognise(self, kind: Kind) -> tuple[str, bytes]:
        """Name the type by the first bytes and hold it against the kind and what was declared."""
        head = b""
        while len(head) < HEAD_BYTES:
            chunk = await anext(self._upload.body, b"")
            if not chunk:
                break
            head += chunk
        if not head:
            raise ContentRefusedError("the document is empty")
        media_type = await self._vault.sniffer.sniff(
            head[:HEAD_BYTES], sender=self._access.intent.principal
        )
        if media_type not in MEDIA_TYPES[kind]:
            raise UnsupportedTypeError(
                f"the file is {media_type}; a {kind.value} must be one of "
                + ", ".join(sorted(MEDIA_TYPES[kind]))
            )
        check_type(self._upload.media_type, self._upload.filename, media_type)
        return media_type, head

    async def _keep(
        self, key: DataKey, wrapped: WrappedKey, media_type: str, encryption: "_Encryption"
    ) -> Document:
        """Document, key and record together; this commit is the acknowledgement."""
        filename = json.dumps({"filename": self._upload.filename}).encode()
        metadata = key.encrypt(filename, metadata_context(self._region, self._identity))
        self._wrapped = True

        @retried
        async def commit() -> Document:
            nonlocal wrapped
            kept = await self._vault.committer.submit(
                KEEP,
                Keeping(
                    key=wrapped,
                    media_type=media_type,
                    size_bytes=encryption.size_bytes,
                    stream_header=bytes(encryption.header),
                    metadata=metadata,
                    now=self._vault.clock(),
                    claim=self._once.claimed(encryption.mac),
                    outcome=self._access.conclude,
                ),
            )
            if kept.document is not None:
                return kept.document
            # The outcome was not recorded either.
            self._access.concluded = False
            if kept.swept_up:
                raise ConflictError("the upload took too long and was swept up; send it again")
            if not kept.stale_scope:
                raise ConflictError(
                    "a request with this Idempotency-Key is in progress or just done"
                )
            wrapped = await self._vault.keyring.rewrap(key, wrapped)
            raise StaleScopeError

        return await commit()

    async def drop(self) -> None:
        """Withdraw what was announced and purge what arrived, as far as that can be done now."""
        try:
            async with asyncio.timeout(self._vault.config.store_timeout_seconds):
                await asyncio.shield(self._withdraw())
        except (VaultError, TimeoutError):
            log.info("upload %s is left for the collector", self._identity)

    async def _withdraw(self) -> None:
        if self._storing:
            await drop_upload(self._vault, self._region, self._identity, wrapped=self._wrapped)
            return
        async with connection(self._vault.pool) as conn:
            await documents_sql.delete_receiving(conn, self._identity)


class _Encryption:
    """The body as it passes: counted, encrypted, and hashed only where something asks for it."""

    def __init__(self, key: DataKey, context: bytes, size_max: int, mac: hmac.HMAC | None) -> None:
        self.size_bytes = 0
        #: The stream's first bytes, which identify the object for ever.
        self.header = bytearray()
        self._encryptor = key.encryptor(context)
        self._size_max = size_max
        #: Of the request and its content, where an Idempotency-Key was sent.
        self.mac = mac

    async def pass_through(self, head: bytes, upload: Upload) -> AsyncIterator[bytes]:
        """Yield the Cobblestone stream; raises at the end unless all that was declared is true."""
        digest = hashlib.sha256() if upload.sha256 else None
        chunk = head
        while chunk:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._size_max:
                raise too_large(self._size_max)
            if digest:
                digest.update(chunk)
            if self.mac:
                self.mac.update(chunk)
            if encrypted := self._encryptor.update(chunk):
                self._note(encrypted)
                yield encrypted
            chunk = await anext(upload.body, b"")
        if upload.size_bytes is not None and self.size_bytes != upload.size_bytes:
            raise TruncatedUploadError
        if digest and not hmac.compare_digest(digest.digest(), upload.sha256 or b""):
            raise DigestMismatchError
        encrypted = self._encryptor.finalize()
        self._note(encrypted)
        yield encrypted

    def _note(self, encrypted: bytes) -> None:
        if len(self.header) < HEADER_BYTES:
            self.header += encrypted[: HEADER_BYTES - len(self.header)]


# ---- Ingest. ------------------------------------------------------------------------------------

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
        announced = await vault.committer.submit(
            ANNOUNCE, Announcement(intent, identity, order, kind.value, once.wanted)
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


# ---- Collect: sweep up uploads that never ended. ------------------------------------------------
#
# Their keys were never kept, so nothing in the database opens them. But a wrap that was sent to it
# in a transaction that was rolled back, or cut short by a crash, may be in its WAL, where the key
# of a living scope would open it: so the scope gets a fresh key with the next seal.

BATCH = 100


async def drop_upload(vault: Vault, region: str, document: UUID, *, wrapped: bool) -> None:
    """
    Purge the object of an upload that did not end well, and forget its row.

    `wrapped` says that its wrapped key was sent to the database.
    """
    async with transaction(vault.pool) as conn:
        # The lock waits for a commit whose answer was lost: what that stored is not dropped.
        if (order := await documents_sql.lock_receiving(conn, document)) is not None:
            await vault.stores[region].purge(object_name(document))
            if wrapped:
                await vault.keyring.doubt(conn, region, order)
            await documents_sql.delete_receiving(conn, document)


async def collect_abandoned(vault: Vault, region: str) -> int:
    """
    Drop uploads older than `receiving_seconds_max`; returns how many there were.

    One whose object cannot be purged holds up no other, and raises in the end.
    """
    before = vault.clock() - timedelta(seconds=vault.config.receiving_seconds_max)
    left, failures, count = list[UUID](), list[VaultError](), 0
    last = time.monotonic() + PURGE_SECONDS
    while count + len(left) < BATCH and time.monotonic() <= last:
        async with transaction(vault.pool) as conn:
            found = await documents_sql.lock_abandoned(conn, region, before, left)
            if found is None:
                break
            document, order = found
            try:
                await vault.stores[region].purge(object_name(document))
            except VaultError as error:
                left.append(document)
                failures.append(error)
            else:
                # Nobody is left who knows whether its key was sent.
                await vault.keyring.doubt(conn, region, order)
                await documents_sql.delete_receiving(conn, document)
                count += 1
    if failures:
        raise failures[0]
    return count
