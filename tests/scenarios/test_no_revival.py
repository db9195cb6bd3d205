"""No revival: once sealed, no collection of database states and root keys opens a document."""

import asyncio
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures_server import OPERATOR, Api
from vault.actions.keys import mark_sealed, seal
from vault.config.settings import Config
from vault.context import Vault
from vault.trials.attackers import Attacker

#: Refuses every commit that leaves a stored document without its key: a seal would stop at it.
WHOLE = """
    create function whole() returns trigger language plpgsql as $$
    begin
        if exists (select from document d where d.id = coalesce(new.id, old.id)
            and d.custody = 'stored' and not exists (select from data_key k where k.id = d.id))
        then raise exception 'half'; end if;
        return null;
    end $$;
    create constraint trigger whole after insert or update on document
        deferrable initially deferred for each row execute function whole();
    create constraint trigger whole after insert or delete on data_key
        deferrable initially deferred for each row execute function whole();
"""


@pytest.fixture
def config(config: Config) -> Config:
    """Have the database answer in its own time: how long seals and uploads take is not tested."""
    return replace(config, record_timeout_seconds=30.0, database_timeout_seconds=30.0)


async def attack(vault: Vault, attacker: Attacker) -> dict[UUID, bytes]:
    """Try everything that the attacker took, with what the custodian holds now."""
    attacker.keys.clear()
    await attacker.take_database(vault.config.database)
    attacker.take_custodian(vault.config.signing_key_path.parent)
    attacker.learn()
    return attacker.read(attacker.documents)


async def test_a_sealed_document_is_in_no_backup(api: Api, vault: Vault, passport: bytes) -> None:
    """With every wrap ever written and every root key left, only the living document opens."""
    attacker, order = Attacker("uk"), await api.order()
    _, dead = await api.put(order, passport)
    _, living = await api.put(order, passport)
    await attacker.take_database(vault.config.database)
    attacker.take_bucket(vault.config.home / "objects" / "uk")
    path = f"/v1/documents/{dead['id']}/actions/shred"
    assert (await api.call("POST", path, json={"reason": "test"}))[0] == 200
    assert len(await attack(vault, attacker)) == 2, "not yet sealed"
    assert await seal(vault, OPERATOR, "uk") is not None
    attacker.take_bucket(vault.config.home / "objects" / "uk")
    assert await attack(vault, attacker) == {UUID(living["id"]): passport}
    await asyncio.sleep(vault.config.key_cache_seconds)
    assert await mark_sealed(vault, "uk") == 1
    assert (await api.get(dead["id"]))[0] == 410
    assert await api.get(living["id"]) == (200, passport)


async def test_seals_and_uploads_at_once_lose_nothing(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Seals between, during and after uploads and shreds leave every living document readable."""
    order, small, going = await api.order(), passport[:50_000], True
    owner = await asyncpg.connect(vault.config.database)
    await owner.execute(WHOLE)

    async def seals() -> int:
        count = 0
        while going:
            await seal(vault, OPERATOR, "uk", force=True)
            count += 1
        return count

    async def uploads() -> list[str]:
        kept = []
        for number in range(15):
            status, document = await api.put(order, small)
            assert status == 201
            if number % 3:
                kept.append(document["id"])
            else:
                path = f"/v1/documents/{document['id']}/actions/shred"
                assert (await api.call("POST", path, json={"reason": "test"}))[0] == 200
        return kept

    sealing = asyncio.create_task(seals())
    kept = [one for many in await asyncio.gather(*(uploads() for _ in range(3))) for one in many]
    going = False
    assert await sealing > 1
    for document in kept:
        assert await api.get(document) == (200, small)
    with pytest.raises(asyncpg.RaiseError, match="half"):
        await owner.execute("delete from data_key where id = $1", UUID(kept[0]))
    await owner.close()


async def test_the_tree_grows_past_a_page(vault: Vault, api: Api, passport: bytes) -> None:
    """With more orders than two pages hold, every one of them opens, before and after a seal."""
    orders = [await api.order() for _ in range(125)]
    _, document = await api.put(orders[-1], passport)
    for _ in range(2):
        for order in orders:
            assert (await api.call("GET", f"/v1/orders/{order}"))[0] == 200
        assert await api.get(document["id"]) == (200, passport)
        path = f"/v1/orders/{orders[0]}/documents?kind=passport"
        _, extra, _ = await api.call("POST", path, data=passport)
        path = f"/v1/documents/{extra['id']}/actions/shred"
        await api.call("POST", path, json={"reason": "test"})
        assert await seal(vault, OPERATOR, "uk") is not None
