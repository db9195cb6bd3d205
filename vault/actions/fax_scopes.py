"""
The scopes of faxes: each process fills one of its own, for a minute or a thousand faxes.

So many faxes a second neither wait for one another nor make the tree grow: a scope whose faxes are
all shredded is dropped by the next seal, also while a process still fills it, which then opens
another one.
"""

import time
from dataclasses import replace
from uuid import UUID

from keys.errors import KeyDestroyedError, StaleScopeError
from keys.keyring import DataKey, WrappedKey
from vault.actions.retry import retried
from vault.context import Vault
from vault.process.watches import FaxScope
from vault.sql.connection import transaction


def _scope(vault: Vault, region: str) -> FaxScope:
    return vault.fax_desk.scopes.setdefault(region, FaxScope())


async def _current(vault: Vault, region: str) -> UUID:
    scope = _scope(vault, region)
    async with scope.lock:
        age = time.monotonic() - scope.opened_at
        full = scope.faxes >= vault.config.fax_scope_faxes_max
        if scope.id is None or full or age >= vault.config.fax_scope_seconds_max:
            identity = vault.new_id()
            async with transaction(vault.pool) as conn:
                await vault.keyring.create_empty_scope(conn, region, identity)
            scope.id, scope.faxes, scope.opened_at = identity, 0, time.monotonic()
        scope.faxes += 1
        return scope.id


def _leave(vault: Vault, region: str, identity: UUID) -> None:
    """Fill this scope no more: a seal has dropped it."""
    scope = _scope(vault, region)
    if scope.id == identity:
        scope.id = None


@retried
async def new_fax_key(vault: Vault, region: str, fax: UUID) -> tuple[DataKey, WrappedKey]:
    """Make the key of a fax, known to nobody until it is kept."""
    scope = await _current(vault, region)
    try:
        return await vault.keyring.new_key(region, scope, fax)
    except (KeyDestroyedError, StaleScopeError):
        _leave(vault, region, scope)
        raise StaleScopeError from None


async def rewrap_fax_key(vault: Vault, key: DataKey, stale: WrappedKey) -> WrappedKey:
    """Wrap a fax's key again: its scope was re-keyed, or dropped, before it was kept."""

    @retried
    async def rewrap() -> WrappedKey:
        nonlocal stale
        try:
            return await vault.keyring.rewrap(key, stale)
        except (KeyDestroyedError, StaleScopeError):
            _leave(vault, stale.region, stale.scope)
            stale = replace(stale, scope=await _current(vault, stale.region))
            raise StaleScopeError from None

    return await rewrap()
