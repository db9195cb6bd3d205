"""Whoever keeps unwrapped keys drops them when a seal is announced, or may have been."""

import asyncio
from pathlib import Path

import asyncpg

from keys.generations import listen_for_seals
from tests.key_house import REGION, build


async def until(condition: asyncio.Event) -> None:
    """Wait for it, but not for ever."""
    async with asyncio.timeout(10):
        await condition.wait()
    condition.clear()


async def test_a_seal_elsewhere_empties_the_caches(database: str, tmp_path: Path) -> None:
    """A process that only reads has forgotten its keys as soon as another one has sealed."""
    async with build(database, tmp_path) as reader, build(database, tmp_path) as sealer:
        await sealer.keyring.start_region(REGION)
        (key,) = await sealer.put()
        heard = asyncio.Event()

        def forget() -> None:
            reader.keyring.forget()
            heard.set()

        task = asyncio.create_task(listen_for_seals(database, forget))
        await until(heard)
        await reader.keyring.new_key(REGION, sealer.scopes[key], key)
        assert reader.keyring._scopes.find(sealer.scopes[key]) is not None
        await sealer.keyring.seal(REGION, force=True)
        await until(heard)
        assert reader.keyring._scopes.find(sealer.scopes[key]) is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_lost_connection_counts_as_a_seal(database: str) -> None:
    """What was announced while nobody listened is made good: everything is forgotten."""
    heard = asyncio.Event()
    task = asyncio.create_task(listen_for_seals(database, heard.set))
    await until(heard)
    conn = await asyncpg.connect(database)
    await conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )
    await conn.close()
    await until(heard)
    await until(heard)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
