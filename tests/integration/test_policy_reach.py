"""A policy reaches no further than who applies it, and waits for what goes by the one before."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from tests.access_records import append, checkpoints
from tests.retention_house import ADMIN, clocked, custody, end, new_order, put, sweep
from vault.actions.expire import shred_due
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import trim_log
from vault.actions.policy import apply_policy
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.documents import Kind
from vault.errors import ClockError, ForbiddenError


def longer(vault: Vault) -> str:
    """Return the policy with papers kept a hundred days."""
    return vault.policy_text.replace('"P90D"', '"P100D"')


async def test_nobody_changes_the_policy_of_other_regions(vault: Vault) -> None:
    """An administrator of the UK changes no row that judges documents in Singapore."""
    mine = replace(ADMIN, regions=frozenset({"uk"}))
    with pytest.raises(ForbiddenError, match="changes sg"):
        await apply_policy(vault, mine, longer(vault), None)
    assert (await apply_policy(vault, ADMIN, longer(vault), None))[0] == 2


async def test_a_policy_waits_for_what_goes_by_the_one_before(
    config: Config, pool: asyncpg.Pool
) -> None:
    """When a longer policy is answered, nothing is shredded by the shorter one any more."""
    async with clocked(config) as (vault, clock):
        order = await new_order(vault)
        invoice = await put(vault, order, Kind.INVOICE)
        await end(vault, order)
        await sweep(vault)
        clock.forward(days=95)
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute("select from data_key where id = $1 for update", invoice)
            shredding = asyncio.create_task(shred_due(vault, "uk"))
            await asyncio.sleep(0.5)
            applying = asyncio.create_task(apply_policy(vault, ADMIN, longer(vault), None))
            done, _ = await asyncio.wait([shredding, applying], timeout=0.5)
            assert done == set()
        assert await shredding == 1
        assert (await applying)[0] == 2
        assert await custody(vault, invoice) == "shredded"


async def test_a_clock_that_runs_ahead_trims_nothing_of_the_log(vault: Vault) -> None:
    """Nothing is signed away, and nothing goes, by a clock that is years ahead of the database."""
    await append(vault, 300)
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    ahead = replace(vault, clock=lambda: vault.clock() + timedelta(days=20 * 366))
    with pytest.raises(ClockError):
        await trim_log(ahead, "uk")
    log: Path = vault.config.home / "objects" / "uk" / "log"
    assert checkpoints(log)
    assert not list(log.glob("minimum*"))
