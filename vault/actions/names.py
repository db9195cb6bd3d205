"""What the principals of an answer were called when they acted."""

from typing import Any

from vault.context import Vault
from vault.domain.people import Names, actors_of
from vault.sql import access as access_sql
from vault.sql.connection import connection


async def named(vault: Vault, shown: Any) -> Any:
    """Return an answer in which each principal has its name of then beside it, or None."""
    principals = actors_of(shown)
    if not principals:
        return Names([]).beside(shown)
    async with connection(vault.pool) as conn:
        names = await access_sql.names_of(conn, principals)
    return names.beside(shown)
