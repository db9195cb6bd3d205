"""
The end of an order's encrypted details: its numbers, its references and its carriers.

They go as the policy's row `order_details` says: after the order's end and its grace, once none of
its documents is left, and while no hold keeps the order or its customer. The order stays, as an id
with its region, customer, status and times. What to look at was written down by whatever changed,
so a look at nothing costs the same however many orders there are.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import asyncpg

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import DataKey, WrappedKey
from vault.actions.access import Access, own_intent, recorded
from vault.actions.expire import GROUND, check_doubt, trusted_time
from vault.actions.keys import worker
from vault.actions.policy import in_force
from vault.actions.read import damaged, lost_key
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.orders import (
    Details,
    Order,
    decode_details,
    details_context,
    index_key_id,
    macs,
    marks_of,
    reference_mac,
)
from vault.domain.retention import judge
from vault.sql import log as log_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.order_details import IndexKey

BATCH = 500


async def forget_orders(vault: Vault, region: str) -> int:
    """Look at a batch of orders, and shred the details of those that are due; returns how many."""
    async with transaction(vault.pool) as conn:
        now = await trusted_time(vault, conn, region)
        await check_doubt(vault, conn, region, now)
        # First, since whoever applies a policy has every order looked at again.
        await retention_sql.freeze_policy(conn)
        looked = await details_sql.take_looks(conn, region, now, BATCH)
        if not looked:
            return 0
        current = await in_force(vault, conn)
        await retention_sql.freeze_holds(conn, region)
        found = await details_sql.lock_without_documents(conn, looked)
        # Under a hold there is no time; its release has the order looked at again.
        times = {
            identity: due_at
            for identity, facts in found.items()
            if (due_at := judge(facts, current.policy, current.grace).due_at) is not None
        }
        later = {identity: at for identity, at in times.items() if at > now}
        if later:
            await details_sql.look_later(conn, region, list(later), list(later.values()))
        if due := sorted(times.keys() - later.keys()):
            await _shred(vault, conn, region, due)
    return len(looked)


async def _shred(vault: Vault, conn: Connection, region: str, orders: list[UUID]) -> None:
    """Destroy, record, and mark; until the commit nothing is gone, and the records come first."""
    await vault.keyring.destroy_keys(conn, region, orders)
    intents = [
        own_intent(vault, Action.ORDER_FORGET, region, reason=GROUND, order=order)
        for order in orders
    ]
    await vault.recorder.append_many(intents)
    await details_sql.set_gone(conn, orders, vault.clock())
    await log_sql.insert_records(conn, [Access(vault, intent).conclude() for intent in intents])


# ---- Look orders up by a telephone number or a reference, and replace the key that they are found
# by.
#
# A new key becomes the present one, the orders move to it one by one, and when none is left the
# old key is destroyed, with what stood under it. Each step is a transaction and derives from the
# rows what is left to do, so that it may end, or happen twice, between any two.

INDEX_BATCH = 200


async def orders_of_number(vault: Vault, region: str, number: str) -> list[UUID]:
    """Return a region's orders that move a number; whoever asks has recorded that they do."""
    return await _orders_of(vault, region, lambda key: macs(key, [number])[0])


async def orders_of_reference(vault: Vault, region: str, reference: str) -> list[UUID]:
    """Return a region's orders of a customer's reference; recorded before, as for a number."""
    return await _orders_of(vault, region, lambda key: reference_mac(key, reference))


@retried
async def _orders_of(vault: Vault, region: str, mac_of: Callable[[DataKey], bytes]) -> list[UUID]:
    keys = await _keys(vault, region)
    known = [key for key in keys if key.wrapped is not None]
    found_by = [mac_of(await _opened(vault, key)) for key in known]
    async with connection(vault.pool) as conn:
        found = await details_sql.orders_of(conn, region, [key.id for key in known], found_by)
    if [key.id for key in await _keys(vault, region)] != [key.id for key in keys]:
        # An order may have moved to a key that came after the keys were read.
        raise StaleScopeError
    return found


@retried
async def index_key(vault: Vault, region: str) -> tuple[UUID, DataKey]:
    """Return the key that new orders are indexed under; makes the region's first one."""
    present = _present(await _keys(vault, region))
    if present is None or present.wrapped is None:
        await _replace(vault, region, present)
        raise StaleScopeError
    return present.id, await _opened(vault, present)


async def renew_index(vault: Vault, region: str) -> int:
    """Take one step of replacing the index's key, if it is time; returns how much it did."""
    days = timedelta(days=vault.config.number_index_days)
    keys = await _keys(vault, region)
    present = _present(keys)
    if present is not None and (
        present.wrapped is None or vault.clock() - present.created_at >= days
    ):
        await _replace(vault, region, present)
        return 1
    retired = [key.id for key in keys if key.retired_at is not None]
    async with connection(vault.pool) as conn:
        orders = await details_sql.waiting_numbers(conn, region, retired, INDEX_BATCH)
    if not orders and not retired:
        return 0
    # Either opens the details of orders, or destroys a key.
    async with recorded(vault, worker(vault), Action.ORDER_REINDEX, region=region) as access:
        return await (_move(access, region, orders) if orders else _forget(vault, region, retired))


async def _forget(vault: Vault, region: str, retired: list[UUID]) -> int:
    # Nothing is added under a retired key: who adds holds the row against being retired.
    for key in retired:
        async with transaction(vault.pool) as conn:
            await vault.keyring.destroy_keys(conn, region, [key])
            await details_sql.forget_key(conn, key)
    return len(retired)


async def _move(access: Access, region: str, orders: list[UUID]) -> int:
    vault = access.vault
    identity, key = await index_key(vault, region)
    damaged_order: DamagedError | None = None
    for order in orders:
        try:
            details = await _details(access, order)
        except DamagedError as error:
            # It stays where it is until it is mended, and keeps no other from being moved.
            damaged_order = error
            continue
        async with transaction(vault.pool) as conn:
            if details is None:
                await details_sql.forget_orders(conn, [order])
            else:
                await details_sql.move_numbers(
                    conn, region, identity, order, marks_of(key, details)
                )
    if damaged_order is not None:
        raise damaged_order
    return len(orders)


@retried
async def _details(access: Access, identity: UUID) -> Details | None:
    """Return an order's details; None when nobody can know them any more."""
    async with connection(access.vault.pool) as conn:
        wrapped = await orders_sql.details_key(conn, identity)
        order = await orders_sql.find(conn, identity)
    return None if order is None else await opened(access, order, wrapped)


async def opened(access: Access, order: Order, wrapped: WrappedKey | None) -> Details | None:
    """
    Open an order's details; None when they are gone.

    The key was read before the order was: they go together. Raises `DamagedError`.
    """
    if order.details is None:
        return None
    if wrapped is None:
        raise lost_key(order.region, order.id)
    key = await access.unwrap(wrapped, order=order.id)
    try:
        return decode_details(key.decrypt(order.details, details_context(order.region, order.id)))
    except IntegrityError:
        found = Damage(order.region, "does not open", "porting_order", str(order.id), "details")
        raise damaged(found) from None


async def _keys(vault: Vault, region: str) -> list[IndexKey]:
    async with connection(vault.pool) as conn:
        return await details_sql.index_keys(conn, region)


def _present(keys: list[IndexKey]) -> IndexKey | None:
    return next((key for key in keys if key.retired_at is None), None)


async def _opened(vault: Vault, key: IndexKey) -> DataKey:
    if key.wrapped is None:
        raise StaleScopeError
    return await vault.keyring.open_key(key.wrapped)


async def _replace(vault: Vault, region: str, old: IndexKey | None) -> None:
    new = index_key_id(vault.new_id())
    # Whoever comes second finds another one present, and its own is rolled back.
    with suppress(asyncpg.UniqueViolationError):
        async with transaction(vault.pool) as conn:
            await vault.keyring.create_scope(conn, region, new, new)
            await details_sql.replace_key(conn, region, old.id if old else None, new, vault.clock())
