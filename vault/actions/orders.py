"""Open a porting order, look at it, and move it along the carrier's status axis."""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from keys.errors import KeyDestroyedError, StaleScopeError
from keys.keyring import DataKey, WrappedKey
from vault.actions.access import Access, recorded, served
from vault.actions.once import Once
from vault.actions.order_details import index_key, opened, orders_of_number
from vault.actions.retention import Standing, standings
from vault.actions.retry import ATTEMPTS, retried
from vault.context import Vault
from vault.domain.access import CARRIER_ROLE, Action, Principal
from vault.domain.carriers import CARRIERS, REFERENCE, CarrierEvent, Reason
from vault.domain.documents import Document
from vault.domain.orders import (
    AHEAD_MAX,
    DESK,
    ENDED,
    TRANSITIONS,
    Details,
    Order,
    OrderEvent,
    Status,
    check_customer,
    check_details,
    check_time,
    details_context,
    encode_details,
    fold,
    marks_of,
    time_said,
)
from vault.domain.placement import Warned, check_placement
from vault.domain.text import said_time
from vault.errors import ConflictError, InvalidRequestError, KeysBusyError, NotFoundError
from vault.sql import documents as documents_sql
from vault.sql import log as log_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order with its details opened, as long as there are any, and its documents."""

    order: Order
    details: Details | None
    documents: list[Document]
    standings: dict[UUID, Standing]
    #: What is likely a mistake about where it lies, said to who opens or corrects it.
    warnings: tuple[Warned, ...] = ()


async def create_order(
    vault: Vault,
    principal: Principal,
    *,
    region: str,
    customer: str,
    numbers: list[str],
    customer_reference: str | None = None,
    port_type: str | None = None,
    losing_carrier: str | None = None,
    gaining_carrier: str | None = None,
    idempotency_key: str | None = None,
) -> OrderView:
    """Open an order in a region, with a scope of its own in the region's key tree."""
    details = check_details(
        numbers,
        customer_reference,
        port_type=port_type,
        losing_carrier=losing_carrier,
        gaining_carrier=gaining_carrier,
    )
    check_customer(customer)
    once = Once(principal, idempotency_key, ["order", region, customer, asdict(details)])
    identity = vault.new_id()
    async with recorded(
        vault,
        principal,
        Action.ORDER_CREATE,
        region=served(vault, region),
        order=identity,
        customer=customer,
    ) as access:
        if earlier := await once.earlier(vault):
            await once.check(vault)
            return await view_order(access, principal, earlier)
        warnings = check_placement(
            vault.rules.placements,
            region,
            numbers=details.numbers,
            customer=customer,
            principal=principal,
        )
        for attempt in range(ATTEMPTS):
            index, key = await index_key(vault, region)
            with suppress(StaleScopeError, KeyDestroyedError):
                own, wrapped = await _new_key(vault, region, identity)
                async with transaction(vault.pool) as conn:
                    if attempt == 0:
                        # No other wrap was sent under this scope, so no WAL has one.
                        await vault.keyring.settle(conn, region, identity)
                    if await vault.keyring.keep_keys(conn, [wrapped]):
                        raise StaleScopeError
                    order = await _open(vault, conn, identity, region, customer, details, own)
                    marks = marks_of(key, details)
                    if not await details_sql.insert_numbers(conn, region, index, identity, marks):
                        # The index's key was replaced meanwhile: nothing goes under the old one.
                        raise StaleScopeError
                    await once.claim(conn, identity, vault.clock(), own)
                    await log_sql.insert_records(conn, [access.conclude()])
                return OrderView(order, details, [], {}, warnings)
        raise KeysBusyError


async def _new_key(vault: Vault, region: str, identity: UUID) -> tuple[DataKey, WrappedKey]:
    """
    Make the order's scope and, within it, its key, which nothing keeps yet.

    The scope is committed before anything is sent that a key of it opens, and is dirty until the
    order stands: where the order's transaction is rolled back, or the process ends, the next seal
    drops the scope, and from then on nothing opens what the WAL has of the order.
    """
    # It is there already where an earlier attempt was stopped after it.
    with suppress(asyncpg.UniqueViolationError):
        async with transaction(vault.pool) as conn:
            await vault.keyring.create_empty_scope(conn, region, identity)
    return await vault.keyring.new_key(region, identity, identity)


async def _open(
    vault: Vault,
    conn: Connection,
    identity: UUID,
    region: str,
    customer: str,
    details: Details,
    key: DataKey,
) -> Order:
    order = _new_order(identity, region, customer, details, key, vault.clock())
    await orders_sql.insert(conn, order)
    first = OrderEvent(DESK, str(identity), order.status, order.created_at)
    await orders_sql.insert_event(conn, identity, first, order.created_at)
    return order


def _new_order(
    identity: UUID, region: str, customer: str, details: Details, key: DataKey, now: datetime
) -> Order:
    encrypted = key.encrypt(encode_details(details), details_context(region, identity))
    return Order(identity, region, customer, Status.DRAFT, encrypted, now, now, None)


async def show_order(vault: Vault, principal: Principal, identity: UUID) -> OrderView:
    """Return an order of the principal's regions."""
    region = await _region_of(vault, identity)
    async with recorded(
        vault, principal, Action.ORDER_READ, region=region, order=identity
    ) as access:
        return await view_order(access, principal, identity)


async def change_order(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    status: Status,
    effective_at: datetime | None = None,
) -> OrderView:
    """Move the order; `ported` and `cancelled` start the retention of its documents."""
    async with connection(vault.pool) as conn:
        found = await orders_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.ORDER_CHANGE,
        region=found.region if found else None,
        order=identity,
        # Whoever ends an order has all its documents shredded, and whoever reopens it keeps them.
        every_kind=status in ENDED or (found is not None and found.status in ENDED),
    ) as access:
        async with transaction(vault.pool) as conn:
            order = await orders_sql.find(conn, identity, lock=True)
            if order is None or found is None:
                raise NotFoundError
            if (order.status in ENDED) != (found.status in ENDED):
                raise ConflictError("the order was ended or reopened meanwhile; try again")
            occurred_at = None
            if status is not order.status:
                _check_transition(order.status, status)
                occurred_at = await _occurred_at(vault, conn, order, effective_at)
                event = OrderEvent(DESK, str(vault.new_id()), status, occurred_at)
                await settle(vault, conn, order, event)
            outcome = access.conclude(reason=status.value)
            said = time_said(occurred_at) if occurred_at else None
            await log_sql.insert_records(conn, [replace(outcome, reference=said)])
        return await view_order(access, principal, identity)


async def _occurred_at(
    vault: Vault, conn: Connection, order: Order, effective_at: datetime | None
) -> datetime:
    """Return when the desk's word counts from: after all that was said before."""
    now = vault.clock()
    last_at = fold(await orders_sql.events_of_order(conn, order.id)).last_at
    if effective_at is None:
        return max(now, last_at + timedelta(microseconds=1))
    check_time(effective_at, order.created_at, now)
    if effective_at <= last_at:
        raise ConflictError(
            f"something was said of this order for {said_time(last_at)}; effective_at must be later"
        )
    return effective_at


def _check_transition(old: Status, new: Status) -> None:
    allowed = TRANSITIONS[old]
    if new not in allowed:
        raise ConflictError(
            f"an order that is {old} cannot become {new}; "
            + (f"it can become {', '.join(sorted(allowed))}" if allowed else "it is final")
        )


async def _region_of(vault: Vault, identity: UUID) -> str | None:
    async with connection(vault.pool) as conn:
        order = await orders_sql.find(conn, identity)
    return order.region if order else None


@retried
async def view_order(access: Access, principal: Principal, identity: UUID) -> OrderView:
    """Return an order as its principal may see it, within an access that is recorded."""
    vault = access.vault
    async with connection(vault.pool) as conn:
        wrapped = await orders_sql.details_key(conn, identity)
        order = await orders_sql.find(conn, identity)
        documents = await documents_sql.of_order(conn, identity)
        stand = await standings(vault, conn, principal, [document.id for document in documents])
    if order is None:
        raise NotFoundError
    details = await opened(access, order, wrapped)
    kinds = principal.kinds
    known = [item for item in documents if kinds is None or item.kind in kinds]
    return OrderView(order, details, known, stand)


# ---- What carriers and the desk say of an order, and what follows from it. ----------------------

_PURPOSE = "order-event"


async def settle(vault: Vault, conn: Connection, order: Order, event: OrderEvent) -> bool:
    """Take an event of a locked order and make the order what all add up to; False: known."""
    if not await orders_sql.insert_event(conn, order.id, event, vault.clock()):
        return False
    folded = fold(await orders_sql.events_of_order(conn, order.id))
    if (folded.status, folded.ended_at) != (order.status, order.ended_at):
        await orders_sql.set_status(conn, order.id, folded.status, vault.clock(), folded.ended_at)
        await retention_sql.look_again_at_orders(conn, [order.id])
    return True


async def take_event(vault: Vault, event: CarrierEvent) -> bool | Reason:
    """
    Take what a carrier reports, whose signature was checked; False when it came before.

    Returns the reason where it moves no order for another reason; raises `NotFoundError` where it
    is of an order, and of none that is here.
    """
    principal = Principal(f"carrier:{event.carrier}", CARRIER_ROLE, frozenset(vault.config.regions))
    now = vault.clock()
    occurred_at = event.occurred_at or now
    if occurred_at > now + AHEAD_MAX:
        raise InvalidRequestError("the event is of the future")
    if event.number is not None:
        found = await _order_of_number(vault, principal, event, event.number)
        if isinstance(found, Reason):
            return found
        order: Order | None = found
    else:
        async with connection(vault.pool) as conn:
            identity = await _order_of(conn, event)
            order = await orders_sql.find(conn, identity) if identity else None
    async with recorded(
        vault,
        principal,
        Action.ORDER_EVENT,
        region=order.region if order else None,
        order=order.id if order else None,
    ) as access:
        if order is None:
            raise NotFoundError
        name = await _name(vault, order.id, event)
        if name is None:
            await vault.recorder.append(access.conclude(reason=Reason.DETAILS_GONE))
            return Reason.DETAILS_GONE
        async with transaction(vault.pool) as conn:
            locked = await orders_sql.find(conn, order.id, lock=True)
            if locked is None:
                raise NotFoundError
            said = OrderEvent(
                event.carrier, name, event.status, max(occurred_at, locked.created_at)
            )
            taken = await settle(vault, conn, locked, said)
            what = event.status.value if taken else "known"
            outcome = replace(access.conclude(reason=what), reference=time_said(said.occurred_at))
            await log_sql.insert_records(conn, [outcome])
        return taken


@retried
async def _name(vault: Vault, order: UUID, event: CarrierEvent) -> str | None:
    """
    Return what the event is known by: its id, or a MAC of what was said, with numbers in it.

    The MAC is under the key of the order's details. None once that is gone: what is said of the
    order then cannot be told from what was said before, which must not move it again.
    """
    if isinstance(event.event, str):
        return event.event
    async with connection(vault.pool) as conn:
        wrapped = await orders_sql.details_key(conn, order)
    if wrapped is None:
        return None
    return (await vault.keyring.open_key(wrapped)).mac(event.event, _PURPOSE).hex()


async def _order_of_number(
    vault: Vault, principal: Principal, event: CarrierEvent, number: str
) -> Order | Reason:
    """
    Return the open order that moves this number alone; else the reason why there is none.

    An order of several numbers is where the carrier says that the whole of it is: one number that
    is ported would begin the retention of what the others still need.
    """
    found = list[UUID]()
    for region in vault.config.regions:
        # The key of the region's index is unwrapped.
        async with recorded(vault, principal, Action.ORDER_EVENT, region=region):
            found += await orders_of_number(vault, region, number)
    async with connection(vault.pool) as conn:
        linked = await orders_sql.linked(conn, event.carrier, event.reference)
        orders = [await orders_sql.find(conn, identity) for identity in found]
        living = [order for order in orders if order is not None and order.ended_at is None]
        if linked is not None:
            living = [order for order in orders if order is not None and order.id == linked]
        if len(living) != 1:
            return Reason.SEVERAL_ORDERS if living else Reason.NO_ORDER
        if await details_sql.count_numbers(conn, living[0].id) != 1:
            return Reason.SEVERAL_NUMBERS
    return living[0]


async def _order_of(conn: Connection, event: CarrierEvent) -> UUID | None:
    """
    Return the order that the carrier was given as a reference, or that its own id was linked to.

    Our own id, which only whoever ordered there gave, counts before what somebody linked. An order
    that is linked to other carriers only is none of this one's.
    """
    try:
        named = UUID(event.customer_reference or "")
    except ValueError:
        named = None
    carriers = await orders_sql.carriers_of(conn, named) if named else None
    if carriers is not None and (event.carrier in carriers or not carriers):
        return named
    return await orders_sql.linked(conn, event.carrier, event.reference)


async def link_order(
    vault: Vault, principal: Principal, identity: UUID, carrier: str, reference: str
) -> None:
    """Note what a carrier calls an order, so that its webhooks find it."""
    if carrier not in CARRIERS or not REFERENCE.fullmatch(reference):
        raise InvalidRequestError(
            f"carrier must be one of {', '.join(CARRIERS)}, and reference its id of the order"
        )
    async with connection(vault.pool) as conn:
        order = await orders_sql.find(conn, identity)
    async with (
        recorded(
            vault,
            principal,
            Action.ORDER_LINK,
            region=order.region if order else None,
            order=identity,
        ) as access,
        transaction(vault.pool) as conn,
    ):
        if not await orders_sql.link_carrier(conn, carrier, reference, identity):
            raise ConflictError(f"{carrier} calls another order so already")
        await log_sql.insert_records(conn, [access.conclude(reason="linked")])
