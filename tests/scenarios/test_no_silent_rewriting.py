"""No silent rewriting: whoever edits the access log behind the vault's back is found out."""

import asyncpg
import pytest

from tests.fixtures_server import Api
from vault.actions.records import verify_region
from vault.actions.sequence import sequence_log
from vault.context import Vault
from vault.domain.access import Principal

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))


async def filled(api: Api, vault: Vault) -> None:
    """Make some records, in two checkpoints."""
    await api.order()
    await sequence_log(vault, "uk")
    await api.order()
    await sequence_log(vault, "uk")


async def test_an_honest_log_verifies(api: Api, vault: Vault) -> None:
    """Untouched, the log is intact, complete and consistent."""
    await filled(api, vault)
    assert (await verify_region(vault, COMPLIANCE, "uk")).good


@pytest.mark.parametrize(
    "statement",
    [
        "update access_record set reason = 'x' where id = (select record from log_leaf limit 1)",
        "delete from log_leaf where index = 1",
        "delete from log_leaf where index = (select max(index) from log_leaf)",
    ],
)
async def test_a_changed_log_does_not_verify(api: Api, vault: Vault, statement: str) -> None:
    """Refused by the database; and done by its owner nevertheless, it is found."""
    await filled(api, vault)
    with pytest.raises(asyncpg.RaiseError):
        await vault.pool.execute(statement)
    async with vault.pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        await conn.execute(statement)
        await conn.execute("set session_replication_role = default")
    assert not (await verify_region(vault, COMPLIANCE, "uk")).good
