"""Look at faxes and fetch them: a fetch is an attempt to deliver, and recorded as such."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from keys.damage import DamagedError
from keys.errors import StaleScopeError
from keys.stream import DataKey
from vault.actions.access import Access, own_regions, recorded
from vault.actions.fax_ending import queue_damaged
from vault.actions.outgoing import Outgoing
from vault.actions.stored_object import Stored, open_metadata, open_object, without_key
from vault.context import Vault
from vault.domain.access import Action, Principal, Purpose
from vault.domain.documents import Custody
from vault.domain.faxes import KIND, Channel, Direction, Fax, Numbers, State, decode_numbers
from vault.domain.records import Record, encode_receipt, receipt_of
from vault.errors import ConflictError, NotFoundError, ShreddedError, VaultError
from vault.sql import faxes as faxes_sql
from vault.sql.connection import connection
from vault.sql.faxes import Opened, Opening

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class OpenFax:
    """A fax that is being fetched: row, numbers in clear, receipt, and bytes as they are opened."""

    fax: Fax
    numbers: Numbers
    receipt: str
    chunks: Outgoing


@asynccontextmanager
async def open_fax(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    *,
    purpose: str | None = Purpose.DELIVER_FAX,
    alone: bool = False,
) -> AsyncIterator[OpenFax]:
    """
    Open a fax for delivery, which begins with this; the outcome says how many bytes went out.

    Raises `ConflictError` when it is to be opened `alone` and another attempt is under way.
    """
    looked = await vault.fax_finder.submit(identity)
    attempt = _Attempt(vault, identity, alone=alone)
    async with recorded(
        vault,
        principal,
        Action.FAX_READ,
        region=looked.region,
        document=identity,
        kind=KIND,
        custody=looked.custody,
        purpose=purpose,
        begin=attempt.begin,
    ) as access:
        try:
            fax, key = await attempt.key(access)
            numbers = open_metadata(key, Stored.of(fax), decode_numbers)
            async with open_object(vault, Stored.of(fax), key) as pieces:
                chunks = Outgoing(access, pieces)
                try:
                    receipt = encode_receipt(receipt_of(access.intent))
                    yield OpenFax(fax, numbers, receipt, chunks)
                finally:
                    await chunks.aclose()
        except DamagedError:
            # Where that cannot be said now, the attempt runs out.
            with suppress(VaultError):
                await queue_damaged(vault, identity)
            raise


class _Attempt:
    """An attempt to deliver, which begins in the commit that makes its intent durable."""

    def __init__(self, vault: Vault, fax: UUID, *, alone: bool) -> None:
        self._vault, self._fax, self._alone = vault, fax, alone
        self._now = vault.clock()
        self._until = self._now + timedelta(seconds=vault.config.fax_attempt_seconds_max)
        self._begun: Opened | None = None

    async def begin(self, intent: Record) -> None:
        """Begin, unless somebody else has the fax now; for the `begin` of `recorded`."""
        opened = await self._open(intent)
        if not opened.left_out:
            self._begun = opened

    async def key(self, access: Access) -> tuple[Fax, DataKey]:
        """Return the fax and its key; raises why the attempt may not begin."""
        opened = self._begun
        for _ in range(ATTEMPTS):
            opened = opened or await self._open(None)
            if opened.fax is None or opened.key is None:
                if opened.fax is None or opened.fax.custody is not Custody.STORED:
                    raise ShreddedError("the fax was shredded")
                if self._alone and opened.fax.next_attempt_at > self._now:
                    raise ConflictError("another attempt to deliver this fax is under way")
                raise without_key(opened.fax)
            try:
                return opened.fax, await access.unwrap(opened.key, order=None)
            except StaleScopeError:
                # The attempt is ours by now.
                self._alone, opened = False, None
        raise ConflictError("the region's keys are being sealed; try again")

    async def _open(self, intent: Record | None) -> Opened:
        return await self._vault.fax_opener.submit(
            Opening(self._fax, self._now, self._until, self._alone, intent)
        )


async def describe_fax(vault: Vault, principal: Principal, identity: UUID) -> Fax:
    """Return a fax as it stands: while it lives and, as its receipt, afterwards."""
    async with connection(vault.pool) as conn:
        fax = await faxes_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.FAX_DESCRIBE,
        region=fax.region if fax else None,
        document=identity,
        kind=KIND,
    ):
        if fax is None:
            raise NotFoundError
        return fax


async def list_faxes(
    vault: Vault,
    principal: Principal,
    *,
    direction: Direction | None = None,
    states: Sequence[State] | None = None,
    channel: Channel | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[Fax]:
    """Return a page of the faxes of the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    async with (
        recorded(vault, principal, Action.FAX_DESCRIBE, region=mine, kind=KIND),
        connection(vault.pool) as conn,
    ):
        return await faxes_sql.page(
            conn,
            mine,
            direction=direction,
            states=states,
            channel=channel,
            before=before,
            limit=limit,
        )
