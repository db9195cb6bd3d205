"""Backup: a dump holds the log and every wrapped key, so who takes one is written down in each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal


@asynccontextmanager
async def backed_up(vault: Vault, principal: Principal) -> AsyncIterator[None]:
    """Record a backup in the log of every region, before it is taken and when it has ended."""
    async with recorded(vault, principal, Action.BACKUP_CREATE, region=vault.config.regions):
        yield
