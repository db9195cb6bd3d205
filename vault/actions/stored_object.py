"""
What lies in the store for a document or a fax, opened: its bytes as they verify, or what is wrong.

Every read compares what the object begins with, its salt and the commitment to its key, with what
its row says: a row that was altered is found as an object that was.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from keys import damage
from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError
from keys.stream import HEADER_BYTES, DataKey, ciphertext_size
from vault.context import Vault
from vault.domain.documents import Document, metadata_context, object_name, stream_context
from vault.domain.faxes import Fax
from vault.errors import LeftBehindError, ObjectMissingError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the row of a document or a fax says of its object and of its sealed metadata."""

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
    """Return the metadata sealed in a row; raises `DamagedError`."""
    with _or_damaged(
        Damage(stored.region, "does not open", stored.table, str(stored.id), "metadata")
    ):
        context = metadata_context(stored.region, stored.id)
        return decode(key.open(stored.metadata or b"", context))


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
        async with vault.stores[stored.region].get(object_name(stored.id)) as sealed:
            yield decrypted(stored, key, sealed)
    except ObjectMissingError:
        raise stored.object_damaged("is missing") from None


async def decrypted(
    stored: Stored, key: DataKey, sealed: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield a stream decrypted, as its chunks verify; raises `DamagedError` as said above."""
    decryptor = key.decryptor(stream_context(stored.region, stored.id))
    head: bytes | None = b""
    whole, read, size, wrong = ciphertext_size(stored.size_bytes or 0), 0, 0, "does not open"
    try:
        async for chunk in sealed:
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
