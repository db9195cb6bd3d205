"""What is tried again and again while a part is away says so once, and once when it works again."""

import asyncio
import logging
from pathlib import Path

import pytest

from vault import worker
from vault.actions.bucket import require_own_store
from vault.context import Vault
from vault.process import meter, watches


async def test_a_reconciler_says_once_that_a_store_is_away(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of some ten tries without the store, and some with it, two lines stay in the log."""
    monkeypatch.setattr(worker, "BACK_OFF_SECONDS", 0.01)
    place, tries = Path(vault.config.objects_uri("uk").removeprefix("dir:")), list[str]()

    async def look(looked: Vault, region: str) -> int:
        tries.append(region)
        await require_own_store(looked.pool, looked.stores[region], region)
        return 0

    place.rename(place.with_name("away"))
    task = asyncio.create_task(worker._repeat(vault, worker.Reconciler("look", look, 0.01)))
    while len(tries) < 20:
        await asyncio.sleep(0.01)
    place.with_name("away").rename(place)
    found = len(tries)
    while len(tries) < found + 20:
        await asyncio.sleep(0.01)
    task.cancel()
    said = [record.getMessage() for record in caplog.records if record.name == "vault.worker"]
    assert len(said) == 2, said
    assert said[0].startswith("look in uk: the objects in ")
    assert said[1].startswith("look in uk: works again, after ")


async def test_watches_say_once_why_the_database_is_away(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the reason that the database gave, and stands there once for each watch."""
    monkeypatch.setattr(meter, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(watches, "LOOK_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    caplog.clear()
    watch = watches.LogWatch(vault.pool, ("uk",), seconds_max=3600.0)
    await vault.pool.close()
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.3)
    task.cancel()
    what = "how long access records wait is not known: "
    said = [text for record in caplog.records if (text := record.getMessage()).startswith(what)]
    assert len(set(said)) >= 1
    assert said[0].startswith(f"{what}The database is not available. (InterfaceError: pool is clos")
    # The vault's own watch and this one.
    assert len(said) <= 4
