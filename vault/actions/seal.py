"""
Seal: make all shreds so far irrecoverable.

The seal itself is the keyring's. A document becomes `sealed` when every generation that knew its
key is destroyed and no process can still have one of those keys in its cache.
"""

from datetime import timedelta

from keys.keyring import SealResult
from vault.actions.access import recorded, served
from vault.actions.published_first import wait_published
from vault.context import Vault
from vault.domain.access import WORKER_ROLE, Action, Principal
from vault.sql import documents as documents_sql
from vault.sql import fax_intake as fax_intake_sql
from vault.sql.connection import transaction


def worker(vault: Vault) -> Principal:
    """Return the vault itself as a principal."""
    return Principal("worker", WORKER_ROLE, frozenset(vault.config.regions))


async def seal(
    vault: Vault, principal: Principal, region: str, *, force: bool = False
) -> SealResult | None:
    """Replace the region's root generation and destroy the old one; None when nothing is dirty."""
    async with recorded(vault, principal, Action.KEYS_SEAL, region=served(vault, region)) as access:
        # Before anything: the seal ends with what cannot be undone.
        await wait_published(access)
        return await vault.keyring.seal(region, force=force)


async def mark_sealed(vault: Vault, region: str) -> int:
    """Mark documents irrecoverable once the caches of all processes have expired."""
    async with transaction(vault.pool) as conn:
        destroyed = await vault.keyring.destroyed_generation(conn, region)
        if destroyed is None:
            return 0
        generation, destroyed_at = destroyed
        expired_at = destroyed_at + timedelta(seconds=vault.config.key_cache_seconds)
        now = vault.clock()
        if now < expired_at:
            return 0
        faxes = await fax_intake_sql.set_sealed(conn, region, generation, now)
        return faxes + await documents_sql.set_sealed(conn, region, generation, now)
