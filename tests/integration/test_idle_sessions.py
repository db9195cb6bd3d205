"""A machine that is gone without a word keeps no lock for longer than a session may be idle."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from keys import nodes
from keys.ground.postgres import AWAY
from tests.fixtures_server import NUMBERS, PORTING
from vault.actions.orders import create_order
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault


@pytest.fixture
async def impatient(config: Config) -> AsyncIterator[Vault]:
    """Open a vault whose sessions may be idle for a second."""
    async with open_vault(replace(config, database_idle_seconds=1.0)) as vault:
        yield vault


async def test_a_seal_that_stands_still_is_overtaken(impatient: Vault) -> None:
    """Who holds a region's seal and does nothing loses it, and another seals."""
    keyring = impatient.keyring
    with pytest.raises(AWAY):
        async with keyring._seal("uk").alone():
            assert await keyring.seal("uk", force=True) is not None


async def test_a_transaction_that_stands_still_holds_nobody_up(impatient: Vault) -> None:
    """Who has locked a region's tree and does nothing loses the lock, and an order is opened."""
    async with impatient.pool.acquire() as stopped:
        await stopped.execute("begin")
        await nodes.change(stopped, "uk")
        await create_order(impatient, PORTING, region="uk", customer="acme", numbers=NUMBERS)
        with pytest.raises(AWAY):
            await stopped.execute("commit")
