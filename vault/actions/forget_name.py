"""Forget what a principal was called: the log keeps its id, and nobody can be told from that."""

from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.errors import NotFoundError
from vault.sql import access as access_sql
from vault.sql import log as log_sql
from vault.sql.connection import transaction


async def forget_name(vault: Vault, principal: Principal, of: str) -> int:
    """Take all names of the principal `of` away, its token's label too; returns how many."""
    async with (
        recorded(vault, principal, Action.LOG_FORGET_NAME, region=vault.config.regions) as access,
        transaction(vault.pool) as conn,
    ):
        number = await access_sql.forget_name(conn, of)
        if not number:
            raise NotFoundError("no name is kept of this principal; say its id, as the log has it")
        await log_sql.insert_records(conn, access.conclude_everywhere(of))
    return number
