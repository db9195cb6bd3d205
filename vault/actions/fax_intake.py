"""
Receive: take a fax into custody.

The sandboxed child looks into its bytes before anything is stored. Then one statement, which the
faxes that come at the same time share, makes the rows, keeps the wrapped keys and records the
outcomes: its commit is the acknowledgement. The intent alone announces a fax: an object whose
intent was interrupted is purged by whoever closes that intent.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from keys.errors import StaleScopeError
from keys.keyring import DataKey, WrappedKey
from keys.stream import HEADER_BYTES, Encryptor, ciphertext_size
from vault.actions.access import Access, recorded, served
from vault.actions.fax_scopes import new_fax_key, rewrap_fax_key
from vault.actions.once import LEFT, KeyEndedError, KeyReusedError, begin_mac, check_key, key_ended
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import (
    FAX,
    HEAD_BYTES,
    Custody,
    check_type,
    metadata_context,
    object_name,
    stream_context,
)
from vault.domain.faxes import (
    MEDIA_TYPES,
    Channel,
    Checked,
    Direction,
    Fax,
    Numbers,
    State,
    check_caller,
    check_facts,
    check_number,
    encode_numbers,
    mask,
    region_by_code,
    region_of,
)
from vault.errors import (
    ConflictError,
    ContentRefusedError,
    DigestMismatchError,
    InvalidRequestError,
    TooLargeError,
    TruncatedUploadError,
    UnsupportedTypeError,
    VaultError,
)
from vault.sql import faxes as faxes_sql
from vault.sql.connection import connection
from vault.sql.fax_intake import TAKE, NewFax
from vault.sql.faxes import ClaimedFax
from vault.sql.intake import Claim

# ---- What a fax is, and whether it would be taken; keeps and records nothing. -------------------


async def check_fax(vault: Vault, data: bytes, *, sender: str) -> tuple[str, Checked]:
    """
    Return what the fax is; raises why it would not be taken.

    `sender` is whose turn it is in the sandbox: a principal, or a peer that needs no token.
    """
    if len(data) > vault.config.fax_bytes_max:
        raise fax_too_large(vault.config.fax_bytes_max)
    if not data:
        raise ContentRefusedError("the fax is empty")
    media_type = await vault.sniffer.sniff(data[:HEAD_BYTES], sender=sender)
    if media_type not in MEDIA_TYPES:
        raise UnsupportedTypeError(
            f"the file is {media_type}; a fax must be one of {', '.join(sorted(MEDIA_TYPES))}"
        )
    checked = await vault.sandbox.check(
        data, media_type, pages_max=vault.config.fax_pages_max, sender=sender
    )
    return media_type, checked


def fax_too_large(size_max: int) -> TooLargeError:
    """Return the refusal that names the limit."""
    return TooLargeError(f"a fax may have at most {size_max} bytes: send it as several faxes")


# ---- Fax intake. --------------------------------------------------------------------------------

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
#: The reason of an outcome whose fax was there already, or came too late.
NOT_TAKEN = "not-taken"


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a gateway sends; everything but its bytes is only what it says."""

    #: As they come, or in whole, where whoever brings them has counted them in the account of
    #: memory and named whose turn it is in the sandbox.
    body: AsyncIterator[bytes] | bytes
    direction: str
    caller: str | None
    callee: str
    region: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    #: SHA-256 of the whole content, where the client sent Content-Digest.
    sha256: bytes | None = field(default=None, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict)
    #: Whose turn it is in the sandbox, where that is not the principal.
    sender: str | None = None


async def receive_fax(
    vault: Vault,
    principal: Principal,
    incoming: Incoming,
    *,
    idempotency_key: str | None = None,
    more_keys: Sequence[str] | None = None,
) -> Fax:
    """
    Take a fax into custody; durable and readable when this returns, however often it is sent.

    With `more_keys` the fax is known if it is in custody under any of the keys, and takes the first
    one that nothing else came under: others choose them, so an earlier fax that has ended is
    passed over. Raises `KeyReusedError` when there is none, or when another fax came under
    `idempotency_key`; `KeyEndedError` when what came under it has ended, and its receipt shows no
    difference.
    """
    check_key(idempotency_key)
    asked = _asked(vault, principal, incoming)
    async with recorded(
        vault,
        principal,
        Action.FAX_RECEIVE,
        region=served(vault, asked.region),
        document=asked.id,
        kind=FAX,
    ) as access:
        try:
            async with asyncio.timeout(vault.config.fax_receive_seconds_max):
                size_max = _size_max(vault, incoming)
                counted = 0 if isinstance(incoming.body, bytes) else size_max
                with vault.memory.share(counted):
                    data = await _read(incoming, size_max)
                    sender = incoming.sender or principal.id
                    media_type, checked = await check_fax(vault, data, sender=sender)
                    check_type(incoming.media_type, None, media_type)
                    same = _Same(asked, media_type, checked.pages, data)
                    access.size_bytes = len(data)
                    if more_keys is not None and idempotency_key is not None:
                        keys = [idempotency_key, *more_keys]
                        known = await _claimed(vault, principal.id, keys, same)
                        if (earlier := _known(known)) is not None:
                            await vault.recorder.append(access.conclude(reason=NOT_TAKEN))
                            return earlier
                        idempotency_key = _free(keys, known)
                    stored = await _store(vault, access, asked, data)
        except TimeoutError:
            raise TruncatedUploadError("the fax took too long; send it again") from None
        fax = _fax(vault, asked, media_type, checked, stored)
        fingerprint = same.mac(stored.key) if idempotency_key is not None else None
        new = NewFax(
            fax=fax,
            claim=Claim(principal.id, idempotency_key or "", fingerprint),
            idempotent=idempotency_key is not None,
            key=stored.wrapped,
            until=access.intent.at + timedelta(seconds=2 * vault.config.fax_receive_seconds_max),
            outcome=access.conclude,
        )
        return await _keep(vault, access, new, stored.key, same)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a gateway's request says of a fax, checked."""

    id: UUID
    region: str
    direction: Direction
    numbers: Numbers = field(repr=False)
    facts: Mapping[str, str]
    #: As it was declared.
    media_type: str | None


def _asked(vault: Vault, principal: Principal, incoming: Incoming) -> _Asked:
    try:
        direction = Direction(incoming.direction)
    except ValueError:
        raise InvalidRequestError("direction must be inbound or outbound") from None
    callee = check_number(incoming.callee, "to")
    numbers = Numbers(check_caller(incoming.caller), callee)
    facts = check_facts(incoming.facts)
    region = recipients_region(vault, principal, callee, incoming.region)
    return _Asked(vault.new_id(), region, direction, numbers, facts, incoming.media_type)


def recipients_region(vault: Vault, principal: Principal, callee: str, said: str | None) -> str:
    """
    Return the recipient's region, by the same rule at every entrance.

    It is its route's, its number's country's, what was said, its country code's (Canada and the
    Caribbean share the one of the United States), the only one of whoever brings the fax, or
    `fax_other_region`. Raises `InvalidRequestError` where it is none that is served here.
    """
    here = vault.config.regions
    route = vault.fax_routes.find(callee)
    known = (route.region if route else None) or region_of(callee)
    if said is not None and known is not None and said != known:
        raise InvalidRequestError(
            f"the recipient's region decides where a fax is kept, and that is {known}"
        )
    region = known or said or _unsaid_region(vault, principal, callee)
    if region is None:
        raise InvalidRequestError(
            "the number's country has no region here: say the recipient's region, or set "
            "fax_other_region in the vault, which is for the faxes of all such countries"
        )
    # Of one that was said, the decision says whether it is one of theirs.
    if region not in (said, *here):
        raise InvalidRequestError(
            f"the recipient's region is {region}; served here: {', '.join(here)}"
        )
    return region


def _unsaid_region(vault: Vault, principal: Principal, callee: str) -> str | None:
    """Return where a fax is kept whose number has no region, and nobody said one."""
    here, shared = vault.config.regions, region_by_code(callee)
    if shared in here:
        return shared
    own = [region for region in here if region in principal.regions]
    return own[0] if len(own) == 1 else vault.config.fax_other_region or None


def _size_max(vault: Vault, incoming: Incoming) -> int:
    """Return how many bytes this one may have; raises where it says that it has more."""
    size_max = vault.config.fax_bytes_max
    if incoming.size_bytes is None:
        return size_max
    if incoming.size_bytes > size_max:
        raise fax_too_large(size_max)
    return incoming.size_bytes


async def _whole(body: AsyncIterator[bytes], size_max: int) -> bytes:
    pieces, size = list[bytes](), 0
    async for piece in body:
        size += len(piece)
        if size > size_max:
            raise fax_too_large(size_max)
        pieces.append(piece)
    return b"".join(pieces)


async def _read(incoming: Incoming, size_max: int) -> bytes:
    """Return the whole body; raises unless all that was declared of it is true."""
    body = incoming.body
    data = body if isinstance(body, bytes) else await _whole(body, size_max)
    size = len(data)
    if incoming.size_bytes is not None and size != incoming.size_bytes:
        raise TruncatedUploadError
    if incoming.sha256 is not None and not hmac.compare_digest(
        hashlib.sha256(data).digest(), incoming.sha256
    ):
        raise DigestMismatchError
    return data


def _fax(vault: Vault, asked: _Asked, media_type: str, checked: Checked, stored: "_Stored") -> Fax:
    region, numbers, now = asked.region, asked.numbers, vault.clock()
    inbound = asked.direction is Direction.INBOUND
    facts = dict(asked.facts)
    if checked.seconds is not None:
        facts.setdefault("seconds", str(checked.seconds))
    return Fax(
        id=asked.id,
        region=region,
        direction=asked.direction,
        channel=(
            Channel.MAIL if inbound and vault.fax_routes.find(numbers.callee) else Channel.GATEWAY
        ),
        state=State.RECEIVED,
        custody=Custody.STORED,
        media_type=media_type,
        size_bytes=stored.size_bytes,
        pages=checked.pages,
        stream_header=stored.header,
        metadata=stored.metadata,
        caller_masked=mask(numbers.caller, region) if numbers.caller else None,
        callee_masked=mask(numbers.callee, region),
        facts=facts,
        attempts=0,
        next_attempt_at=now,
        result=None,
        received_at=now,
        ended_at=None,
        last_generation=None,
        purged_at=None,
        sealed_at=None,
    )


@dataclass(frozen=True, slots=True)
class _Same:
    """A fax that is sent, to be held against one that was taken under the same Idempotency-Key."""

    asked: _Asked = field(repr=False)
    media_type: str
    pages: int
    data: bytes = field(repr=False)

    def mac(self, key: DataKey) -> bytes:
        """Return the MAC of the request and its content."""
        asked, numbers = self.asked, self.asked.numbers
        mac = begin_mac(
            key,
            [
                *("fax", asked.region, asked.direction, numbers.caller, numbers.callee),
                *(dict(asked.facts), asked.media_type),
            ],
        )
        mac.update(self.data)
        return mac.digest()

    async def of(self, vault: Vault, earlier: ClaimedFax) -> bool | None:
        """Whether the earlier fax is this one; None where it has ended and its receipt agrees."""
        if earlier.fingerprint is None or earlier.wrapped is None:
            return None if _receipt(earlier.fax) == self._receipt() else False
        key = await vault.keyring.open_key(earlier.wrapped)
        return hmac.compare_digest(self.mac(key), earlier.fingerprint)

    def _receipt(self) -> tuple[object, ...]:
        region, numbers = self.asked.region, self.asked.numbers
        return (
            *(region, self.asked.direction),
            mask(numbers.caller, region) if numbers.caller else None,
            *(mask(numbers.callee, region), self.media_type, len(self.data), self.pages),
        )


def _receipt(fax: Fax) -> tuple[object, ...]:
    """Return what is still known of what was sent once its key is destroyed."""
    return (
        *(fax.region, fax.direction, fax.caller_masked, fax.callee_masked),
        *(fax.media_type, fax.size_bytes, fax.pages),
    )


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is known of a fax whose bytes are in the bucket."""

    size_bytes: int
    header: bytes
    #: The numbers, encrypted.
    metadata: bytes
    key: DataKey
    wrapped: WrappedKey


async def _store(vault: Vault, access: Access, asked: _Asked, data: bytes) -> _Stored:
    """Encrypt and put; a crash from here on leaves an object whose key was never kept."""
    region, identity = asked.region, asked.id
    key, wrapped = await new_fax_key(vault, region, identity)
    header = bytearray()
    pieces = _encrypted(key.encryptor(stream_context(region, identity)), data, header)
    try:
        await vault.stores[region].put(
            object_name(identity), pieces, size_bytes=ciphertext_size(len(data))
        )
    except BaseException:
        await _purge(vault, access, identity)
        raise
    metadata = key.encrypt(encode_numbers(asked.numbers), metadata_context(region, identity))
    return _Stored(len(data), bytes(header), metadata, key, wrapped)


async def _encrypted(encryptor: Encryptor, data: bytes, header: bytearray) -> AsyncIterator[bytes]:
    """Yield the stream piece by piece, so that no second copy of it is in memory."""
    for start in range(0, len(data), PIECE_BYTES):
        if piece := encryptor.update(data[start : start + PIECE_BYTES]):
            header += piece[: HEADER_BYTES - len(header)]
            yield piece
    piece = encryptor.finalize()
    header += piece[: HEADER_BYTES - len(header)]
    yield piece


async def _keep(vault: Vault, access: Access, new: NewFax, key: DataKey, same: _Same) -> Fax:
    """Commit together with others; return the earlier fax where this one was sent before."""
    try:
        return await _commit(vault, access, new, key, same)
    except BaseException:
        # Once the outcome was made, the statement may have been sent, and the commit or only its
        # answer was lost: then object and intent are left to whoever closes the intent.
        if not access.concluded:
            await _purge(vault, access, new.fax.id)
        raise


async def _commit(vault: Vault, access: Access, new: NewFax, key: DataKey, same: _Same) -> Fax:
    @retried
    async def commit() -> Fax:
        nonlocal new
        taken = await vault.committer.submit(TAKE, new)
        if taken.taken:
            return new.fax
        access.concluded = False
        if not taken.stale_scope:
            return await _give_back(vault, access, new, same)
        new = replace(new, key=await rewrap_fax_key(vault, key, new.key))
        raise StaleScopeError

    return await commit()


async def _give_back(vault: Vault, access: Access, new: NewFax, same: _Same) -> Fax:
    """Purge what was put a second time, and return what its key was used for first."""
    await _purge(vault, access, new.fax.id)
    if not access.concluded:
        await vault.recorder.append(access.conclude(reason=NOT_TAKEN))
    if new.idempotent:
        found = await _claimed(vault, new.claim.principal, [new.claim.key], same)
        if (earlier := found.get(new.claim.key)) is not None:
            if earlier.same:
                return earlier.fax
            raise KeyReusedError if earlier.same is not None else _ended(earlier.fax)
    raise ConflictError("the fax took too long to be stored; send it again")


def _ended(fax: Fax) -> KeyEndedError | KeyReusedError:
    if fax.left_at is not None:
        return key_ended(
            "fax", fax.id, state=LEFT, ended_at=fax.left_at, result=fax.result, lost=True
        )
    if fax.ended_at is not None:
        return key_ended(
            "fax", fax.id, state=fax.state.value, ended_at=fax.ended_at, result=fax.result
        )
    return KeyReusedError()


@dataclass(frozen=True, slots=True)
class _Claimed:
    fax: Fax
    #: None where it cannot be told: the fax has ended, and its receipt shows no difference.
    same: bool | None
    in_custody: bool


@retried
async def _claimed(
    vault: Vault, principal: str, keys: Sequence[str], same: _Same
) -> dict[str, _Claimed]:
    """Return what was taken under Idempotency-Keys, and which of it is the same as this."""
    async with connection(vault.pool) as conn:
        found = await faxes_sql.find_claimed(conn, principal, keys)
    return {
        key: _Claimed(earlier.fax, await same.of(vault, earlier), bool(earlier.wrapped))
        for key, earlier in found.items()
    }


def _known(claimed: Mapping[str, _Claimed]) -> Fax | None:
    here = (earlier for earlier in claimed.values() if earlier.in_custody)
    return next((earlier.fax for earlier in here if earlier.same), None)


def _free(keys: Sequence[str], claimed: Mapping[str, _Claimed]) -> str:
    for key in keys:
        if key not in claimed:
            return key
    raise KeyReusedError


async def _purge(vault: Vault, access: Access, identity: UUID) -> None:
    """Purge what was put and will not be kept; what cannot be now is left with its open intent."""
    try:
        async with asyncio.timeout(vault.config.store_timeout_seconds):
            store = vault.stores[access.intent.region]
            await asyncio.shield(store.purge(object_name(identity)))
    except (VaultError, TimeoutError):
        access.concluded = True
        log.info("fax %s is left for the collector", identity)
