"""What carriers and the desk say of an order, and what follows from it."""

from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from keys.errors import StaleScopeError
from vault.actions.access import recorded
from vault.actions.number_index import orders_of_number
from vault.context import Vault
from vault.domain.access import CARRIER_ROLE, Action, Principal
from vault.domain.carriers import CARRIERS, REFERENCE, CarrierEvent, Reason
from vault.domain.orders import AHEAD_MAX, Order, OrderEvent, fold, time_said
from vault.errors import ConflictError, InvalidRequestError, NotFoundError
from vault.sql import log as log_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction

ATTEMPTS = 5
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


async def _name(vault: Vault, order: UUID, event: CarrierEvent) -> str | None:
    """
    Return what the event is known by: its id, or a MAC of what was said, with numbers in it.

    The MAC is under the key of the order's details. None once that is gone: what is said of the
    order then cannot be told from what was said before, which must not move it again.
    """
    if isinstance(event.event, str):
        return event.event
    for _ in range(ATTEMPTS):
        async with connection(vault.pool) as conn:
            wrapped = await orders_sql.details_key(conn, order)
        if wrapped is None:
            return None
        with suppress(StaleScopeError):
            return (await vault.keyring.open_key(wrapped)).mac(event.event, _PURPOSE).hex()
    raise ConflictError("the region's keys are being sealed; try again")


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
