"""
The end of an order's sealed details: its numbers, its references and its carriers.

They go as the policy's row `order_details` says: after the order's end and its grace, once none of
its documents is left, and while no hold keeps the order or its customer. The order stays, as an id
with its region, customer, status and times. What to look at was written down by whatever changed,
so a look at nothing costs the same however many orders there are.
"""

from uuid import UUID

from vault.actions.access import Access, own_intent
from vault.actions.expire import GROUND
from vault.actions.expiry_limits import check_doubt, trusted_time
from vault.actions.policy import in_force
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.retention import judge
from vault.sql import log as log_sql
from vault.sql import order_details as details_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, transaction

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
