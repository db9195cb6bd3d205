"""Objects that a store does not give up hold up no other, and are tried again."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures_server import Api
from tests.fixtures_telefax import Faxes
from tests.retention_house import clocked, end, new_order, put, sweep
from vault.actions import purge
from vault.actions.collect import collect_abandoned
from vault.actions.purge import purge_faxes, purge_shredded
from vault.config import Config
from vault.context import ObjectStore, Vault
from vault.domain.documents import object_name
from vault.errors import ObjectStoreUnavailableError


class Keeping:
    """A real store that does not give up some of its objects, as one under a lock of its own."""

    def __init__(self, store: ObjectStore, kept: Sequence[UUID | str]) -> None:
        self._store = store
        self._kept = {object_name(UUID(str(identity))) for identity in kept}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def purge(self, name: str) -> int:
        """Purge what is not kept."""
        if name in self._kept:
            raise ObjectStoreUnavailableError
        return await self._store.purge(name)


def keeping(vault: Vault, kept: Sequence[UUID | str]) -> Vault:
    """Return the vault on such a store."""
    return replace(vault, stores={"uk": Keeping(vault.stores["uk"], kept)})


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
