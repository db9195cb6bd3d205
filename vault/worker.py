"""
The reconcilers: everything slow or repeated.

Each derives what to do from stored state alone and is safe to run twice, after a crash, or on
several machines at once. There is one code path: nothing is handed to a reconciler, so a lost
wake-up loses nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from keys.errors import KeysError
from vault.actions.certificates import certify
from vault.actions.expire import expire, forget_expired
from vault.actions.fax_delivery import expire_faxes, forget_receipts, relay_faxes
from vault.actions.ingest import collect_abandoned
from vault.actions.keys import mark_sealed, seal, worker
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import close_interrupted, trim_log
from vault.actions.look import look_at_rest
from vault.actions.once import forget_claims
from vault.actions.order_details import forget_orders, renew_index
from vault.actions.shred import purge_faxes, purge_shredded
from vault.actions.signals import deliver_signals, tell_due_soon
from vault.context import Vault
from vault.errors import VaultError
from vault.process.outages import Outages, reason_of

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = 5.0
#: What a clean stop takes at most to write what came last into the buckets.
STOP_SECONDS = 4.0
#: Between two steps of the look at rest.
LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reconciler:
    """A step, and how often it looks; a step that found work looks again at once."""

    name: str
    step: Callable[[Vault, str], Awaitable[int]]
    interval_seconds: float


async def _seal(vault: Vault, region: str) -> int:
    # The worker looks every interval; a seal that did something does not hurry the next one.
    await seal_when_dirty(vault, region)
    return 0


async def seal_when_dirty(vault: Vault, region: str) -> None:
    """
    Seal the region if anything was shredded since, or if a seal was left half done.

    Before that, whatever else is to be done: a destroyed key that came back is destroyed again.
    """
    await vault.keyring.destroy_returned(region)
    if await vault.keyring.needs_seal(region):
        await seal(vault, worker(vault), region)


async def _mirror(vault: Vault, region: str) -> int:
    await vault.keyring.mirror(region)
    return 0


_LAST = (("sequence", sequence_log), ("publish", publish_log), ("mirror", _mirror))


def reconcilers(vault: Vault) -> tuple[Reconciler, ...]:
    """Return what the worker does, with this configuration's intervals."""
    return (
        Reconciler("sequence", sequence_log, 1.0),
        Reconciler("publish", publish_log, 1.0),
        Reconciler("trim", trim_log, 3600.0),
        Reconciler("expire", expire, 2.0),
        Reconciler("order-details", forget_orders, 2.0),
        Reconciler("number-index", renew_index, 5.0),
        Reconciler("seal", _seal, vault.config.seal_interval_seconds),
        Reconciler("mirror", _mirror, vault.config.mirror_interval_seconds),
        Reconciler("mark-sealed", mark_sealed, 1.0),
        Reconciler("purge", purge_shredded, 2.0),
        Reconciler("certify", certify, 2.0),
        Reconciler("due-soon", tell_due_soon, 5.0),
        Reconciler("deliver", deliver_signals, 1.0),
        Reconciler("fax-relay", relay_faxes, 1.0),
        Reconciler("fax-expire", expire_faxes, 2.0),
        Reconciler("fax-purge", purge_faxes, 1.0),
        Reconciler("fax-receipts", forget_receipts, 3600.0),
        Reconciler("forget", forget_expired, 60.0),
        Reconciler("idempotency", forget_claims, 600.0),
        Reconciler("collect", collect_abandoned, min(30.0, vault.config.receiving_seconds_max)),
        Reconciler("interrupted", close_interrupted, 60.0),
        Reconciler("look", look_at_rest, LOOK_SECONDS),
    )


async def write_last(vault: Vault) -> None:
    """Bring the buckets up to date before a clean stop, for `STOP_SECONDS` at most."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            for region in vault.config.regions:
                for name, step in _LAST:
                    try:
                        await step(vault, region)
                    except Exception:
                        log.exception("%s in %s before the end", name, region)
    except TimeoutError:
        log.warning("the buckets lack what came last: there was no time to write it at the stop")


async def work(vault: Vault) -> None:
    """Run every reconciler until cancelled."""
    async with asyncio.TaskGroup() as group:
        for reconciler in reconcilers(vault):
            group.create_task(_repeat(vault, reconciler), name=reconciler.name)


async def _repeat(vault: Vault, reconciler: Reconciler) -> None:
    outages = Outages(log)
    while True:
        found, failed = 0, False
        for region in vault.config.regions:
            what = f"{reconciler.name} in {region}"
            try:
                found += await reconciler.step(vault, region)
                outages.works(what)
            except (VaultError, KeysError) as error:
                failed = True
                outages.failed(what, reason_of(error))
            except Exception:
                failed = True
                log.exception("%s in %s", reconciler.name, region)
        if failed:
            await asyncio.sleep(BACK_OFF_SECONDS)
        elif not found:
            await asyncio.sleep(reconciler.interval_seconds)
