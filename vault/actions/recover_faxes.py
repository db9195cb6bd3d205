"""
Recover faxes, in a restore: those that came after the backup, and what became of all of them.

A fax that waits is opened as a whole and looked at as when it came. Its numbers were in its row
alone: so it is shown to no gateway that sends and not relayed, but fetched by a person, who sees on
it whom it is for. A fax that ended leaves its receipt. An attempt to deliver that no record says
the end of may have succeeded, and that is said.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from keys.errors import IntegrityError
from keys.keyring import WrappedKey
from keys.stream import HEADER_BYTES, DataKey, ciphertext_size
from vault.actions.access import Access
from vault.actions.fax_check import check_fax
from vault.actions.recover import open_lost_key, plaintext_size
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.documents import (
    OBJECTS_PREFIX,
    Custody,
    metadata_context,
    object_name,
    stream_context,
)
from vault.domain.faxes import (
    KIND,
    UNKNOWN_NUMBER,
    Channel,
    Direction,
    Fax,
    Numbers,
    State,
    encode_numbers,
)
from vault.domain.records import Record
from vault.errors import (
    ContentRefusedError,
    ObjectMissingError,
    TooLargeError,
    UnsupportedTypeError,
)
from vault.sql import recover as recover_sql
from vault.sql.connection import Connection
from vault.sql.recover import LostFax

#: Whose turn it is in the sandbox.
RESTORE = "restore"
NOT_KNOWN = ("direction", "channel", "from", "to", "facts")
ENDED_NOT_KNOWN = (*NOT_KNOWN, "media_type", "pages", "stream_header", "result")
UNKNOWN_TYPE = "application/octet-stream"
MAYBE_DELIVERED = "tried after the backup; it may have been delivered"
#: What is said of a fax in the backup that was tried since.
AGAIN = f"{MAYBE_DELIVERED}, and is tried again: it may arrive twice"
ENDED = "ended after the backup that was restored"
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
            details[lost.id] = _what_to_do(vault, fax)
        said = replace(access.note("recovered"), document=lost.id, kind=KIND)
        records.append(said)
    return RecoveredFaxes(tuple(records), details)


def _what_to_do(vault: Vault, fax: Fax) -> str:
    goes_at = fax.received_at + timedelta(seconds=vault.config.fax_custody_seconds_max)
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
    fax = _fax(vault, lost, UNKNOWN_TYPE, 0, b"", ENDED_NOT_KNOWN)
    return replace(
        fax,
        state=state,
        custody=Custody.SHREDDED,
        result=ENDED,
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
    sealed = key.seal(numbers, metadata_context(lost.region, lost.id))
    fax = _fax(vault, lost, media_type, checked.pages, header, NOT_KNOWN)
    return replace(fax, metadata=sealed, size_bytes=len(data))


async def _content(vault: Vault, lost: LostFax, key: DataKey) -> tuple[bytes, bytes]:
    """Return what the object begins with, and what it holds; raises `IntegrityError`."""
    whole = ciphertext_size(vault.config.fax_bytes_max)
    sealed = bytearray()
    async with vault.stores[lost.region].get(object_name(lost.id)) as chunks:
        async for chunk in chunks:
            sealed += chunk
            if len(sealed) > whole:
                raise IntegrityError("the object is longer than it was")
    decryptor = key.decryptor(stream_context(lost.region, lost.id))
    data = decryptor.update(bytes(sealed)) + decryptor.finalize()
    return bytes(sealed[:HEADER_BYTES]), data


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
