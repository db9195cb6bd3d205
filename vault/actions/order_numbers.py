"""Read the full numbers of an order, for a purpose: recorded before, and counted as one read."""

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from keys.errors import StaleScopeError
from vault.actions.access import recorded
from vault.actions.number_index import opened
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.orders import DETAILS_NOT_KNOWN
from vault.domain.records import encode_receipt, receipt_of
from vault.errors import ConflictError, LeftBehindError, NotFoundError, ShreddedError
from vault.sql import orders as orders_sql
from vault.sql.connection import connection

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class FullNumbers:
    """All numbers of an order, E.164, and the receipt of their reading."""

    order: UUID
    numbers: tuple[str, ...]
    receipt: str


async def read_numbers(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    *,
    purpose: str | None,
    reference: str | None,
) -> FullNumbers:
    """
    Return the numbers of an order in full, for a stated purpose.

    Raises what a refusal means, and `ShreddedError` where the order's details are gone.
    """
    async with connection(vault.pool) as conn:
        order = await orders_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.ORDER_NUMBERS,
        region=order.region if order else None,
        order=identity,
        purpose=purpose,
        reference=reference,
    ) as access:
        # So an outcome without an answer says that nothing went out.
        access.size_bytes = 0
        for _ in range(ATTEMPTS):
            async with connection(vault.pool) as conn:
                wrapped = await orders_sql.details_key(conn, identity)
                order = await orders_sql.find(conn, identity)
            if order is None:
                raise NotFoundError
            with suppress(StaleScopeError):
                details = await opened(access, order, wrapped)
                if details is None and DETAILS_NOT_KNOWN in (order.not_known or ()):
                    raise LeftBehindError(
                        "a restore lost the order's numbers; nobody shredded them"
                    )
                if details is None:
                    raise ShreddedError("the order's details were shredded: its numbers are gone")
                access.size_bytes = sum(map(len, details.numbers))
                receipt = encode_receipt(receipt_of(access.intent))
                return FullNumbers(identity, details.numbers, receipt)
        raise ConflictError("the region's keys are being sealed; try again")
