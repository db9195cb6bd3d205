"""
A request that carries an Idempotency-Key has its effect once, however often it is sent.

What tells one request from another is a MAC over what was asked and over the content, under the
data key of what the first request made. So it can be compared while that lives, without the content
being kept twice, and says nothing to anybody once that key is destroyed. The MAC goes with its
resource, at the latest `KEPT` after it was made.

The Idempotency-Key of a document or fax is remembered for `KEPT` even when that has ended. Whether
a request that comes under it then is the same cannot be told any more: it is refused with
`KeyEndedError`, which says how the earlier one ended, so that no other content is taken for it.
"""

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from keys.keyring import DataKey
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.text import parse_time, said_time
from vault.errors import ConflictError, InvalidRequestError, VaultError
from vault.sql import intake as intake_sql
from vault.sql.connection import Connection, connection
from vault.sql.intake import Claim

#: How long an Idempotency-Key is remembered.
KEPT = timedelta(hours=24)
KEY_PATTERN = re.compile(r"[!-~]{1,128}")
_PURPOSE = "idempotency"
#: How a document or a fax ended that a restore left behind.
LEFT = "left-behind"
_LENGTH_BYTES = 8


class KeyReusedError(VaultError):
    """This Idempotency-Key was used for another request."""


class NoLongerComparableError(KeyReusedError):
    """What this Idempotency-Key made has no data key, so no content can be compared with it."""


class KeyEndedError(ConflictError):
    """What came under this Idempotency-Key has ended; whether this is the same cannot be told."""

    def __init__(self, message: str | None = None, *, told: Mapping[str, str | None]) -> None:
        """Say what is still known of the earlier one: `told` are members of the problem."""
        super().__init__(message)
        self.told = told


def key_ended(
    noun: str,
    identity: UUID,
    *,
    state: str,
    ended_at: datetime,
    result: str | None,
    lost: bool = False,
) -> KeyEndedError:
    """
    Return the refusal of a request whose Idempotency-Key brought what has ended since.

    `noun` is `document` or `fax`, `state` how the earlier one ended, `result` why, as its receipt
    says it. `lost` is true of what a restore left behind, which nobody took care of.
    """
    why = f" ({result})" if result else ""
    advice = (
        f"Send the {noun} with another Idempotency-Key"
        if lost
        else f"If this is the same {noun}, it was taken care of; if it is another, or is to be "
        "kept anew, send it with another Idempotency-Key"
    )
    return KeyEndedError(
        f"{noun} {identity} came under this Idempotency-Key and has ended: {state} at "
        f"{said_time(ended_at)}{why}. {advice}. Nothing of this request was kept",
        told={
            noun: str(identity),
            "state": state,
            "ended_at": ended_at.isoformat().replace("+00:00", "Z"),
            "result": result,
        },
    )


def check_key(key: str | None) -> None:
    """Raise `InvalidRequestError` for a key that is not 1 to 128 visible ASCII characters."""
    if key is not None and not KEY_PATTERN.fullmatch(key):
        raise InvalidRequestError("Idempotency-Key must be 1 to 128 visible ASCII characters")


def begin_mac(key: DataKey, asked: object) -> hmac.HMAC:
    """Return the MAC of a request, begun with what was asked; content is added with `update`."""
    said = json.dumps(asked, sort_keys=True).encode()
    mac = key.begin_mac(_PURPOSE)
    # With its length, so that no content continues what another request asked.
    mac.update(len(said).to_bytes(_LENGTH_BYTES) + said)
    return mac


@dataclass(frozen=True, slots=True)
class Once:
    """The key a client sent, if any, and what it asked for besides content: JSON values."""

    principal: Principal
    key: str | None
    asked: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a malformed key."""
        check_key(self.key)

    async def earlier(self, vault: Vault) -> UUID | None:
        """Return what the key made before; `check` says whether the same was asked for."""
        if self.key is None:
            return None
        async with connection(vault.pool) as conn:
            row = await intake_sql.find_claim(conn, self.principal.id, self.key)
        return row.resource if row else None

    async def check(self, vault: Vault, content: AsyncIterable[bytes] | None = None) -> None:
        """
        Raise `KeyReusedError` unless the key's first request asked the same, with the same content.

        The content is read to its end, and not kept. Raises `NoLongerComparableError`, before it
        reads any content, where what the first request made has no data key any more.
        """
        key, fingerprint = await self._opened(vault)
        mac = begin_mac(key, self.asked)
        if content is not None:
            async for chunk in content:
                mac.update(chunk)
        if not hmac.compare_digest(mac.digest(), fingerprint):
            raise KeyReusedError

    @retried
    async def _opened(self, vault: Vault) -> tuple[DataKey, bytes]:
        async with connection(vault.pool) as conn:
            row = await intake_sql.find_claim(conn, self.principal.id, self.key or "")
        if row is None:
            # A day went by, or an order lost its details, since the key was looked up.
            raise ConflictError(
                "what this Idempotency-Key made is gone; use another key to send it again"
            )
        if row.wrapped is None or row.fingerprint is None:
            raise NoLongerComparableError
        return await vault.keyring.open_key(row.wrapped), row.fingerprint

    def begin(self, key: DataKey) -> hmac.HMAC | None:
        """Return the MAC of what the data key is made for; None when no key was sent."""
        return begin_mac(key, self.asked) if self.key else None

    @property
    def wanted(self) -> Claim | None:
        """Whose key it is, to look for what it made before."""
        return Claim(self.principal.id, self.key, None) if self.key else None

    def claimed(self, mac: hmac.HMAC | None) -> Claim | None:
        """Return the claim, for a statement that makes the resource and claims the key at once."""
        return Claim(self.principal.id, self.key, mac.digest()) if self.key and mac else None

    async def claim(
        self, conn: Connection, resource: UUID, now: datetime, key: DataKey | None = None
    ) -> None:
        """
        Bind the key in the transaction that makes the resource; one of two racers fails.

        `key` is the resource's data key. Without one the rows say what was asked, and no MAC is
        kept.
        """
        if self.key is None:
            return
        mac = self.begin(key) if key else None
        first = await intake_sql.insert_claim(
            conn,
            self.principal.id,
            self.key,
            fingerprint=mac.digest() if mac else None,
            resource=resource,
            now=now,
        )
        if not first:
            raise ConflictError("a request with this Idempotency-Key is in progress or just done")


async def forget_claims(vault: Vault, region: str) -> int:
    """Forget Idempotency-Keys that are older than `KEPT`; returns how many."""
    before = vault.clock() - KEPT
    async with connection(vault.pool) as conn:
        return await intake_sql.forget_claims(conn, region, before)


# ---- Cursors: where the next page of a list that is sorted by time and id begins. ---------------


def encode_cursor(at: datetime, identity: UUID) -> str:
    """Return the cursor after the last row of a page."""
    return urlsafe_b64encode(f"{at.isoformat()}|{identity}".encode()).decode()


def decode_cursor(text: str) -> tuple[datetime, UUID]:
    """Return what `encode_cursor` was given; raises `InvalidRequestError`."""
    refusal = InvalidRequestError("cursor is not one that was handed out")
    try:
        at, _, identity = urlsafe_b64decode(text).decode().partition("|")
        moment, found = parse_time(at), UUID(identity)
    except ValueError:
        raise refusal from None
    if moment.tzinfo is None:
        raise refusal
    return moment, found
