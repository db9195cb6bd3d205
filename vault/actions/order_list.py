"""
List orders: what the desk finds them by, how many documents each has, and when the first one goes.

Masked numbers and the reference lie encrypted under each order's own key. They are decrypted only
for who asks for them, may read the order and is within the limits; and that it was, is recorded
before, an hour at a time for each order, so that the log says of an order who has seen anything of
it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from keys.damage import DamagedError
from keys.errors import StaleScopeError
from vault.actions.access import Access, own_regions, reader_region, recorded, served
from vault.actions.order_details import opened, orders_of_number, orders_of_reference
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.decision import Circumstances, Relation, decide
from vault.domain.orders import (
    DETAILS_NOT_KNOWN,
    Details,
    Order,
    Status,
    check_customer,
    check_number,
    check_reference,
)
from vault.domain.records import Record, encode_receipt, receipt_of
from vault.errors import (
    InvalidRequestError,
    LeftBehindError,
    LimitError,
    NotFoundError,
    RecordsUnavailableError,
    ShreddedError,
)
from vault.sql import documents as documents_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import connection

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Sought:
    """Which orders: all that fit every field; a number or a reference needs its region."""

    region: str | None = None
    status: Status | None = None
    customer: str | None = None
    #: With a document that goes before this.
    due_before: datetime | None = None
    number: str | None = None
    #: The customer's own, to the letter.
    reference: str | None = None


class Shown(StrEnum):
    """Whether an order's details stand in the list, or why not."""

    KEPT = "kept"
    GONE = "gone"
    UNASKED = "unasked"
    #: They may not leave their region for where the principal reads.
    ELSEWHERE = "elsewhere"
    LIMIT = "limit"
    #: The region's log stands still: nothing of it is opened.
    LATER = "later"
    #: What is kept of them does not open; a look at the order says what to do.
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Listed:
    """An order of a list; the count and the deadline are of the documents one may know of."""

    order: Order
    documents: int
    due_at: datetime | None
    shown: Shown
    details: Details | None = None


async def list_orders(
    vault: Vault,
    principal: Principal,
    sought: Sought,
    before: tuple[datetime, UUID] | None,
    limit: int,
    *,
    details: bool = False,
) -> list[Listed]:
    """
    Return a page of the principal's orders that are sought, newest first.

    One more stands behind it where another page follows; nothing of that one is opened.
    """
    _check(sought)
    regions = own_regions(vault, principal)
    if sought.region is not None:
        known = served(vault, sought.region)
        regions = [known] if known else []
    async with recorded(vault, principal, Action.ORDER_LIST, region=regions) as access:
        among = await _among(vault, sought)
        async with connection(vault.pool) as conn:
            page = await orders_sql.page(
                conn,
                regions,
                None if principal.customers is None else sorted(principal.customers),
                before,
                limit + 1,
                among=among,
                status=sought.status,
                customer=sought.customer,
                due_before=sought.due_before,
            )
            kinds = None if principal.kinds is None else sorted(principal.kinds)
            kept = await documents_sql.kept(conn, [order.id for order in page], kinds)
        if among is not None:
            for order in page[:limit]:
                # That it has this number or reference is said of it, as if they had been opened.
                await access.count_order(order.id)
        listed = [Listed(order, *kept.get(order.id, (0, None)), Shown.UNASKED) for order in page]
        if not details:
            return listed
        return [*await _open(access, principal, listed[:limit]), *listed[limit:]]


def _check(sought: Sought) -> None:
    if sought.customer is not None:
        check_customer(sought.customer)
    if sought.number is not None:
        check_number(sought.number)
    if sought.reference is not None:
        check_reference(sought.reference)
    if sought.region is None and (sought.number, sought.reference) != (None, None):
        raise InvalidRequestError("a number or a reference is looked up in a region: say which")


async def _among(vault: Vault, sought: Sought) -> list[UUID] | None:
    """Return the orders that the index finds; None where it is not asked."""
    found = list[set[UUID]]()
    if sought.region and sought.number:
        found.append(set(await orders_of_number(vault, sought.region, sought.number)))
    if sought.region and sought.reference:
        found.append(set(await orders_of_reference(vault, sought.region, sought.reference)))
    return sorted(set.intersection(*found)) if found else None


async def _open(access: Access, principal: Principal, listed: Sequence[Listed]) -> list[Listed]:
    """Return the same with details, as far as each may be opened now; the records come first."""
    closed = {
        region: word
        for region in {item.order.region for item in listed}
        if (word := _closed(access.vault, principal, region)) is not None
    }
    judged, records, over = list[Listed](), list[Record](), False
    for item in listed:
        order = item.order
        word = Shown.GONE if order.details is None else closed.get(order.region, Shown.KEPT)
        if word is Shown.KEPT:
            known = await access.vault.meter.has_counted(principal, order.id)
            try:
                if not over or known:
                    await access.count_order(order.id)
            except LimitError:
                over = True
            if over and not known:
                word = Shown.LIMIT
            elif not known:
                records.append(_record(access, order))
        judged.append(replace(item, shown=word))
    await access.vault.recorder.append_many(records)
    return [await _opened(access, item) for item in judged]


def _closed(vault: Vault, principal: Principal, region: str) -> Shown | None:
    """Return why no details of a region are opened for a principal; None when they are."""
    case = Circumstances(
        region=region,
        at=vault.clock(),
        relation=Relation.OWN,
        to=reader_region(vault, principal),
    )
    if not decide(vault.rules, principal, Action.ORDER_READ, case).allow:
        return Shown.ELSEWHERE
    try:
        vault.log_watch.require(region)
    except RecordsUnavailableError:
        return Shown.LATER
    return None


def _record(access: Access, order: Order) -> Record:
    """Return what says of an order, in its region's log, that this list shows of it."""
    here = next(one for one in access.everywhere if one.intent.region == order.region)
    return replace(here.note("shown-in-list"), order=order.id)


async def _opened(access: Access, item: Listed) -> Listed:
    for _ in range(ATTEMPTS):
        if item.shown is not Shown.KEPT:
            return item
        async with connection(access.vault.pool) as conn:
            # The key first: what is shredded between the two has no details, and is not damaged.
            wrapped = await orders_sql.details_key(conn, item.order.id)
            order = await orders_sql.find(conn, item.order.id)
        with suppress(StaleScopeError):
            try:
                details = await opened(access, order, wrapped) if order else None
            except DamagedError as error:
                access.vault.keyring.met.note(error)
                return replace(item, shown=Shown.DAMAGED)
            shown = Shown.KEPT if details else Shown.GONE
            return replace(item, details=details, shown=shown)
    return replace(item, shown=Shown.LATER)


# ---- Read the full numbers of an order, for a purpose: recorded before, and counted as one read.


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
        numbers = await _numbers(access, identity)
        access.size_bytes = sum(map(len, numbers))
        receipt = encode_receipt(receipt_of(access.intent))
        return FullNumbers(identity, numbers, receipt)


@retried
async def _numbers(access: Access, identity: UUID) -> tuple[str, ...]:
    async with connection(access.vault.pool) as conn:
        wrapped = await orders_sql.details_key(conn, identity)
        order = await orders_sql.find(conn, identity)
    if order is None:
        raise NotFoundError
    details = await opened(access, order, wrapped)
    if details is None and DETAILS_NOT_KNOWN in (order.not_known or ()):
        raise LeftBehindError("a restore lost the order's numbers; nobody shredded them")
    if details is None:
        raise ShreddedError("the order's details were shredded: its numbers are gone")
    return details.numbers
