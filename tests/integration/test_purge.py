"""Objects that a store does not give up hold up no other, and are tried again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.access_records import append, checkpoints
from tests.fixtures_server import Api
from tests.fixtures_telefax import Faxes
from tests.retention_house import clocked, end, new_order, put, sweep
from vault.actions import bucket
from vault.actions import shred as purge
from vault.actions.bucket import put_object
from vault.actions.ingest import collect_abandoned
from vault.actions.log_publish import publish_log, published_checkpoint, sequence_log
from vault.actions.log_records import close_interrupted
from vault.actions.shred import purge_faxes, purge_shredded
from vault.config.settings import Config
from vault.context import ObjectStore, Vault
from vault.domain.documents import object_name
from vault.errors import ObjectStoreUnavailableError


class Keeping:
    """A real store that does not give up some of its objects, as one under a lock of its own."""

    def __init__(self, store: ObjectStore, keeps: Callable[[str], bool], seconds: float) -> None:
        self._store, self._keeps, self._seconds = store, keeps, seconds
        self.asked = list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def purge(self, name: str) -> int:
        """Purge what is not kept; say no slowly."""
        self.asked.append(name)
        if self._keeps(name):
            await asyncio.sleep(self._seconds)
            raise ObjectStoreUnavailableError
        return await self._store.purge(name)


def keeping_all(
    vault: Vault, keeps: Callable[[str], bool], seconds: float = 0.0
) -> tuple[Vault, Keeping]:
    """Return the vault on such a store, and the store."""
    store = Keeping(vault.stores["uk"], keeps, seconds)
    return replace(vault, stores={"uk": store}), store


def keeping(vault: Vault, kept: Sequence[UUID | str]) -> Vault:
    """Return the vault on a store that keeps the objects of these."""
    names = {object_name(UUID(str(identity))) for identity in kept}
    return keeping_all(vault, names.__contains__)[0]


async def objects(vault: Vault) -> int:
    """Return how many objects there are."""
    return len([item async for item in vault.stores["uk"].list("documents/")])


async def fails(step: Callable[[Vault, str], Awaitable[int]], vault: Vault) -> None:
    """Run a step that has to say that something is left."""
    with pytest.raises(ObjectStoreUnavailableError):
        await step(vault, "uk")


async def test_documents(config: Config) -> None:
    """Of three shredded documents the oldest stays; the others go at once, and it goes later."""
    async with clocked(config) as (vault, _):
        order = await new_order(vault)
        shredded = [await put(vault, order) for _ in range(3)]
        await end(vault, order)
        await sweep(vault)
        await fails(purge_shredded, keeping(vault, shredded[:1]))
        assert await objects(vault) == 1
        assert await purge_shredded(vault, "uk") == 1
        rows = await vault.pool.fetch("select purged_versions from document")
        assert [row["purged_versions"] for row in rows] == [1, 1, 1]


@pytest.mark.parametrize("stuck", [1, 2, 3])
async def test_a_batch_full_of_what_stays(
    vault: Vault, faxes: Faxes, fax: bytes, monkeypatch: pytest.MonkeyPatch, stuck: int
) -> None:
    """Though the oldest fill a whole batch for ever, what comes after them is purged."""
    monkeypatch.setattr(purge, "BATCH", 2)
    ended = [await faxes.taken(fax) for _ in range(stuck + 4)]
    for identity in ended:
        await faxes.act(identity, "deliver")
    stubborn = keeping(vault, ended[:stuck])
    for _ in range(5):
        await fails(purge_faxes, stubborn)
    assert await objects(vault) == stuck
    while await purge_faxes(vault, "uk"):
        pass
    assert await objects(vault) == 0


async def test_uploads_that_never_ended(api: Api, vault: Vault, passport: bytes) -> None:
    """One that cannot be dropped leaves the others to be dropped, and is dropped later."""
    order, abandoned = await api.order(), list[str]()
    for _ in range(3):
        abandoned.append((await api.put(order, passport))[1]["id"])
    # As a server leaves them that was killed before it kept their keys.
    await vault.pool.execute("delete from data_key where id = any($1)", abandoned)
    await vault.pool.execute(
        "update document set custody = 'receiving', stored_at = null, media_type = null,"
        " size_bytes = null, stream_header = null, metadata = null,"
        " received_at = received_at - interval '2 hours'"
    )
    await fails(collect_abandoned, keeping(vault, abandoned[:1]))
    assert await objects(vault) == 1
    assert await collect_abandoned(vault, "uk") == 1
    assert await objects(vault) == 0


async def test_a_store_that_says_no_slowly_is_not_asked_for_everything(
    vault: Vault, faxes: Faxes, fax: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its time is over a batch begins nothing more, so that no other region waits for it."""
    monkeypatch.setattr(bucket, "PURGE_SECONDS", 0.05)
    for _ in range(20):
        await faxes.act(await faxes.taken(fax), "deliver")
    slow, store = keeping_all(vault, lambda _: True, 0.2)
    await fails(purge_faxes, slow)
    # The oldest, and the newest.
    assert len(store.asked) == 2 * bucket.PURGED_TOGETHER
    monkeypatch.undo()
    assert await purge_faxes(vault, "uk") == 20


async def test_what_was_interrupted_is_closed_beside_it(vault: Vault) -> None:
    """A fax whose object stays keeps its own intent open, and no other; later it is closed, too."""
    old, faxes = datetime.now(UTC) - timedelta(days=1), [uuid4(), uuid4()]
    for identity in faxes:
        await put_object(vault.stores["uk"], object_name(identity), b"a fax that was never kept")
        await append(
            vault, 1, action="fax.receive", document=identity, decision="allow", at=old, kind="fax"
        )
    await append(vault, 1, decision="allow", at=old)
    await sequence_log(vault, "uk")
    await fails(close_interrupted, keeping(vault, faxes[:1]))
    closed = "select count(*) from access_record where result = 'interrupted'"
    assert (await vault.pool.fetchval(closed), await objects(vault)) == (2, 1)
    await sequence_log(vault, "uk")
    assert await close_interrupted(vault, "uk") == 1
    assert (await vault.pool.fetchval(closed), await objects(vault)) == (3, 0)


async def test_the_log_is_published_though_what_is_old_stays(vault: Vault) -> None:
    """A bucket that gives up nothing holds every checkpoint and tile; the newest one counts."""
    log = vault.config.home / "objects" / "uk" / "log"
    stubborn, _ = keeping_all(vault, lambda _: True)
    for size in (100, 200, 300):
        await append(vault, 100)
        await sequence_log(vault, "uk")
        assert await publish_log(stubborn, "uk") == 100
        published = await published_checkpoint(vault, "uk")
        assert published is not None
        assert published.checkpoint.size == size
    assert len(checkpoints(log)) == 3
    assert len(list((log / "tile/0/000.p").iterdir())) == 2
