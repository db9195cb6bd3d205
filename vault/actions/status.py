"""Status: what an operator asks about the keys of the regions."""

from keys.keyring import KeyStatus
from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.sql.connection import connection


async def keys_status(vault: Vault, principal: Principal, region: str) -> KeyStatus:
    """Return the state of the region's key tree."""
    known = region if region in vault.config.regions else None
    async with (
        recorded(vault, principal, Action.KEYS_READ, region=known),
        connection(vault.pool) as conn,
    ):
        return await vault.keyring.status(conn, region)
