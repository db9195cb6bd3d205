"""Faxes while something is away: an answer is custody, and what has none is sent again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.fixtures_server import serving
from tests.fixtures_telefax import Faxes
from tests.fixtures_wire import Wire
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import close_interrupted
from vault.actions.shred import purge_faxes
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault

KEY = {"Idempotency-Key": "hylafax-1"}


async def objects(vault: Vault) -> int:
    """Return how many objects of faxes there are."""
    return len([item async for item in vault.stores["uk"].list("documents/")])


async def again(call: Callable[[], Awaitable[Any]]) -> Any:
    """Call until the answer is not that something is away."""
    answer = await call()
    for _ in range(10):
        if answer[0] != 503:
            break
        answer = await call()
    return answer


@pytest.mark.parametrize("lost", ["the answer", "the commit"])
async def test_the_database_goes_away_while_a_fax_is_taken(
    config: Config, wire: Wire, fax: bytes, lost: str
) -> None:
    """The gateway is told to come again, and then there is one fax and one object, whatever was."""
    dsn = await wire.start()
    async with open_vault(replace(config, database=dsn), dsn=dsn) as vault:
        store: Any = vault.stores["uk"]
        put = store.put

        async def put_and_stall(*arguments: Any, **named: Any) -> None:
            await put(*arguments, **named)
            (wire.to_vault if lost == "the answer" else wire.to_database).clear()

        async with serving(vault) as api:
            faxes = Faxes(api)
            store.put = put_and_stall
            assert (await faxes.send(fax, headers=KEY))[0] == 503
            store.put = put
            wire.leave_stalled()
            # Each connection that was stalled is given up by who uses it next.
            answer = await again(lambda: faxes.send(fax, headers=KEY))
            assert answer[0] == 201
            taken = answer[1]
            assert (await again(lambda: faxes.content(taken["id"])))[1] == fax
            rows = await vault.pool.fetch("select id from fax")
            assert [str(row["id"]) for row in rows] == [taken["id"]]
            # What was put and not kept goes with its intent, which nobody is left to conclude.
            later = replace(vault, clock=lambda: vault.clock() + timedelta(hours=4))
            await sequence_log(vault, "uk")
            await close_interrupted(later, "uk")
            assert await objects(vault) == 1
            assert (await faxes.content(taken["id"]))[1] == fax


async def test_the_custodian_goes_away_while_a_fax_is_taken(
    vault: Vault, config: Config, faxes: Faxes, fax: bytes
) -> None:
    """Without the root key nothing is taken and nothing is left; once it is back, all is well."""
    keys = config.signing_key_path.parent
    away = keys.with_name("away")
    root_keys = sorted(keys.glob("uk-*.key"))
    assert root_keys
    away.mkdir()
    vault.keyring.forget()
    for path in root_keys:
        path.rename(away / path.name)
    assert (await faxes.send(fax, headers=KEY))[0] == 503
    assert await vault.pool.fetchval("select count(*) from fax") == 0
    assert await objects(vault) == 0
    for path in root_keys:
        (away / path.name).rename(path)
    status, taken = await faxes.send(fax, headers=KEY)
    assert status == 201
    assert (await faxes.content(taken["id"]))[1] == fax


async def test_the_custodian_goes_away_after_a_fax_was_put(
    vault: Vault, config: Config, faxes: Faxes, fax: bytes
) -> None:
    """A seal meanwhile has the key wrapped again; where it cannot be, what was put is purged."""
    earlier = await faxes.taken(fax)
    keys = config.signing_key_path.parent
    away = keys.with_name("away")
    away.mkdir()
    store: Any = vault.stores["uk"]
    put = store.put

    async def put_and_seal(*arguments: Any, **named: Any) -> None:
        await put(*arguments, **named)
        store.put = put
        await faxes.act(earlier, "deliver")
        await vault.keyring.seal("uk")
        vault.keyring.forget()
        for path in keys.glob("uk-*.key"):
            path.rename(away / path.name)

    store.put = put_and_seal
    assert (await faxes.send(fax, headers=KEY))[0] == 503
    assert await vault.pool.fetchval("select count(*) from fax") == 1
    await purge_faxes(vault, "uk")
    assert await objects(vault) == 0
    for path in list(away.iterdir()):
        path.rename(keys / path.name)
    assert (await faxes.send(fax, headers=KEY))[0] == 201


async def test_a_fax_that_comes_too_slowly_is_dropped(config: Config, fax: bytes) -> None:
    """A fax that is not whole in its time leaves nothing, and the memory it held is free again."""

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(fax), 4096):
            yield fax[start : start + 4096]
            await asyncio.sleep(1.0)

    quick = replace(config, fax_receive_seconds_max=2.0)
    async with open_vault(quick, dsn=quick.database) as vault, serving(vault) as api:
        faxes = Faxes(api)
        assert (await faxes.send(slowly()))[0] == 400
        assert vault.memory.taken_bytes == 0
        assert await objects(vault) == 0
        assert (await faxes.send(fax))[0] == 201
