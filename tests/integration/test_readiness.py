"""Ready means that no part is away that every read takes: each is tried, and each is named."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tests.fixtures_server import Api
from vault.context import STORE_IDENTITY, Vault
from vault.web import health

Break = Callable[[Vault], Awaitable[None]]


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each question looked into, however soon it comes after another."""
    monkeypatch.setattr(health, "READY_SECONDS", -1.0)


async def ask(api: Api, query: str = "") -> tuple[int, dict[str, list[str]]]:
    async with api.session.get(api.url + "/readyz" + query) as response:
        return response.status, (await response.json())["regions"]


async def _forbid_records(vault: Vault) -> None:
    owner = await asyncpg.connect(vault.config.database)
    await owner.execute("revoke insert on access_record from portvault_service")
    await owner.close()


async def _lose_keys(vault: Vault) -> None:
    keys = Path(vault.config.custodian_uri("uk").removeprefix("file:"))
    keys.rename(keys.with_name("away"))


async def _lose_objects(vault: Vault) -> None:
    Path(vault.config.objects_uri("uk").removeprefix("dir:")).rename(vault.config.home / "away")


async def _leave_unsealed(vault: Vault) -> None:
    async with vault.pool.acquire() as conn:
        await vault.keyring.create_empty_scope(conn, "uk", uuid4())
        late = vault.config.seal_seconds_max
        await conn.execute("update key_dirty set since = now() - make_interval(secs => $1)", late)


async def _leave_half_sealed(vault: Vault) -> None:
    async with vault.pool.acquire() as conn:
        late = vault.config.seal_seconds_max
        await conn.execute(
            """
            insert into key_generation (region, generation, state, named_at)
            values ('uk', 7, 'intended', now() - make_interval(secs => $1))
            """,
            late,
        )
        await conn.execute(
            "update key_generation set active_at = now() - make_interval(secs => $1) "
            "where region = 'uk' and state = 'active'",
            late,
        )


async def _empty_objects(vault: Vault) -> None:
    objects = Path(vault.config.objects_uri("uk").removeprefix("dir:"))
    shutil.rmtree(objects)
    objects.mkdir()


async def _swap_objects(vault: Vault) -> None:
    place = {region: Path(vault.config.objects_uri(region)[4:]) for region in ("uk", "sg")}
    shutil.copy(place["sg"] / STORE_IDENTITY, place["uk"] / STORE_IDENTITY)


async def _flip_page(vault: Vault) -> None:
    async with vault.pool.acquire() as conn:
        await vault.keyring.create_empty_scope(conn, "uk", uuid4())
        flip = "set_byte(page, 20, get_byte(page, 20) # 1)"
        await conn.execute(f"update key_node set page = {flip} where region = 'uk'")


@pytest.mark.parametrize(
    "break_it, part, where",
    [
        (_forbid_records, "records", ["uk", "sg"]),
        (_lose_keys, "keys", ["uk", "sg"]),
        (_flip_page, "tree", ["uk"]),
        (_lose_objects, "objects", ["uk"]),
        (_empty_objects, "objects", ["uk"]),
        (_swap_objects, "objects", ["uk"]),
        (_leave_unsealed, "seals", ["uk"]),
        (_leave_half_sealed, "seals", ["uk"]),
    ],
)
async def test_a_part_that_is_away_is_named(
    api: Api, vault: Vault, break_it: Break, part: str, where: list[str]
) -> None:
    """Without one of its parts the vault is not ready, and says which part of which region."""
    assert await ask(api) == (200, {"uk": [], "sg": []})
    await break_it(vault)
    status, regions = await ask(api)
    assert status == 503
    assert regions == {region: [part] if region in where else [] for region in ("uk", "sg")}
    assert (await ask(api, "?region=uk"))[0] == 503
    assert (await ask(api, "?region=sg"))[0] == (503 if "sg" in where else 200)


async def test_a_table_that_is_locked_is_not_ready(api: Api, vault: Vault) -> None:
    """Records that cannot be written in time are as good as none."""
    owner = await asyncpg.connect(vault.config.database)
    async with owner.transaction():
        await owner.execute("lock table access_record in access exclusive mode")
        status, regions = await ask(api)
    await owner.close()
    assert status == 503
    assert regions["uk"] == ["records"]
    assert (await ask(api))[0] == 200


async def test_a_look_leaves_no_record(api: Api, vault: Vault) -> None:
    """However often readiness is asked, the log has nothing of it."""
    before = await vault.pool.fetchval("select count(*) from access_record")
    for _ in range(3):
        assert (await ask(api))[0] == 200
    assert await vault.pool.fetchval("select count(*) from access_record") == before


async def test_a_region_that_is_not_served_is_refused(api: Api) -> None:
    """A region that this vault does not serve is said to be none, and never to be ready."""
    async with api.session.get(api.url + "/readyz?region=hk") as response:
        assert response.status == 422
        assert "uk, sg" in (await response.json())["detail"]


async def test_strangers_do_not_wear_the_custodian_out(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many questions within a moment are one look; the answer tells no path and no reason."""
    monkeypatch.setattr(health, "READY_SECONDS", 60.0)
    await ask(api)
    await _lose_keys(vault)
    for _ in range(20):
        assert (await ask(api))[0] == 200, "this look still counts"
    monkeypatch.setattr(health, "READY_SECONDS", -1.0)
    async with api.session.get(api.url + "/readyz") as response:
        assert str(vault.config.home) not in await response.text()
    async with api.session.get(api.url + "/metrics") as response:
        assert 'portvault_ready{region="uk"} 0.0' in await response.text()


async def test_a_seal_that_is_not_overdue_yet_is_ready(api: Api, vault: Vault) -> None:
    """Short of the bound the region is ready, and a seal ends the waiting."""
    await _leave_unsealed(vault)
    assert (await ask(api))[0] == 503
    async with vault.pool.acquire() as conn:
        await conn.execute("update key_dirty set since = since + interval '1 minute'")
    assert (await ask(api))[0] == 200
    await _leave_half_sealed(vault)
    await vault.keyring.seal("uk", force=True)
    assert (await ask(api))[0] == 200
