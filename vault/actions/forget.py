"""Forget: rows whose time is over go, whoever made them and whether or not anybody asks again."""

from datetime import timedelta

from vault.context import Vault
from vault.domain.limits import first_counting
from vault.sql import access as access_sql
from vault.sql import expiry as expiry_sql
from vault.sql.connection import transaction


async def forget_expired(vault: Vault, region: str) -> int:
    """Sweep every table of `sql/expiry`; returns how many rows went. No region has its own."""
    if region != vault.config.regions[0]:
        return 0
    now = vault.clock()
    cutoffs = expiry_sql.Cutoffs(
        now,
        now - timedelta(days=vault.config.approval_kept_days),
        now - timedelta(days=vault.config.signal_kept_days),
    )
    async with transaction(vault.pool) as conn:
        await access_sql.forget_usage(conn, first_counting(now))
        return await expiry_sql.sweep(conn, cutoffs)
