"""
Signal: tell the porting system what happened to its documents.

A signal is written in the transaction of what it tells of, and delivered afterwards, until the
endpoint takes it or its attempts are used up; then it is dead until somebody replays it. It may
come twice, under the same id, and in another order.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from vault.actions.access import own_regions, recorded
from vault.config.webhooks import deliveries
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.signals import Signal, SignalType, document_signal, next_attempt, signature
from vault.errors import NotFoundError
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql import signals as signals_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.signals import Delivery

DELIVER_BATCH = 16
DUE_SOON_BATCH = 1000
NUMBERS_BATCH = 1000


async def tell(vault: Vault, conn: Connection, signals: Sequence[Signal]) -> None:
    """Write signals in the transaction of what they tell of."""
    if endpoints := deliveries(signals, vault.config.webhooks):
        await signals_sql.insert(conn, signals, endpoints)


async def tell_due_soon(vault: Vault, region: str) -> int:
    """Tell of documents that go within `due_soon_seconds`; each time that is set is told once."""
    if not vault.config.webhooks:
        return 0
    now = vault.clock()
    until = now + timedelta(seconds=vault.config.due_soon_seconds)
    async with transaction(vault.pool) as conn:
        found = await retention_sql.lock_unannounced(conn, region, until, DUE_SOON_BATCH)
        signals = [
            document_signal(
                SignalType.DUE_SOON,
                document,
                now,
                about=due_at.isoformat(),
                due_at=due_at.isoformat(),
            )
            for document, due_at in found
        ]
        await tell(vault, conn, signals)
        await retention_sql.set_announced(conn, [document.id for document, _ in found])
    return len(found)


async def deliver_signals(vault: Vault, region: str) -> int:
    """Deliver what waits, several at once; several workers share the work."""
    async with transaction(vault.pool) as conn:
        await signals_sql.give_numbers(conn, region, NUMBERS_BATCH)
    async with transaction(vault.pool) as conn:
        waiting = await signals_sql.lock_waiting(conn, region, vault.clock(), DELIVER_BATCH)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_deliver(vault, delivery)) for delivery in waiting]
        for delivery, task in zip(waiting, tasks, strict=True):
            failure, now = task.result(), vault.clock()
            if failure is None:
                await signals_sql.set_delivered(conn, delivery, now)
            else:
                again = next_attempt(delivery.attempts + 1, now)
                await signals_sql.set_failed(conn, delivery, failure, again)
    return len(waiting)


async def _deliver(vault: Vault, delivery: Delivery) -> str | None:
    """Return why it was not taken; None when it was. Never raises what an endpoint can cause."""
    # A server has loaded it; a command that sends nothing need not.
    import aiohttp

    webhook = vault.config.webhooks.get(delivery.endpoint)
    if webhook is None:
        return "this endpoint is not configured any more"
    now = vault.clock()
    headers = {
        "Content-Type": "application/json",
        "webhook-id": str(delivery.signal),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature(webhook.secret, delivery.signal, now, delivery.payload),
    }
    body = delivery.payload.encode()
    try:
        status = await vault.courier.post(
            webhook.url, headers, body, allow_private=webhook.allow_private
        )
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
    return None if 200 <= status < 300 else f"status {status}"


async def list_signals(
    vault: Vault,
    principal: Principal,
    state: str | None,
    before: int | None,
    limit: int,
) -> list[Delivery]:
    """Return a page of deliveries of the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    async with (
        recorded(vault, principal, Action.SIGNAL_READ, region=mine),
        connection(vault.pool) as conn,
    ):
        return await signals_sql.page(conn, mine, state, before, limit)


async def replay_signal(vault: Vault, principal: Principal, identity: UUID) -> int:
    """Send a signal again to every endpoint; returns to how many."""
    async with connection(vault.pool) as conn:
        region = await signals_sql.region_of(conn, identity)
    async with recorded(vault, principal, Action.SIGNAL_REPLAY, region=region) as access:
        if region is None:
            raise NotFoundError
        async with transaction(vault.pool) as conn:
            count = await signals_sql.replay(conn, identity, vault.clock())
            await log_sql.insert_records(conn, [access.conclude()])
        return count
