"""Root keys in a real OpenBao: what it refuses, what it forgets, and when it is away."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keys import wrap
from keys.custodians import open_custodian
from keys.errors import CustodianConfigurationError, CustodianUnavailableError, KeyDestroyedError
from tests.fixtures_server import OPERATOR, serving
from tests.fixtures_transit import TOKEN, Bao, Mount
from vault.actions.keys import seal
from vault.app import open_vault
from vault.config.settings import Config

REGION, CONTEXT = "uk", b"portvault/root-key/v1/uk/1"


async def test_only_the_newest_mark_stays(transit: Mount) -> None:
    """However many generations are destroyed, the engine keeps one trace of them."""
    custodian = open_custodian(transit.address)
    for generation in (1, 2, 3, 4):
        await custodian.create(REGION, generation)
    for generation in (1, 3, 2):
        await custodian.destroy(REGION, generation)
    assert await transit.keys() == ["portvault-uk-4", "portvault-uk-destroyed-3"]
    assert await custodian.generations(REGION) == [4]
    with pytest.raises(KeyDestroyedError):
        await custodian.create(REGION, 2)
    await custodian.close()


async def test_an_emptied_mount_is_not_destruction(transit: Mount) -> None:
    """Where there is neither key nor mark, somebody mounted another engine."""
    custodian = open_custodian(transit.address)
    with pytest.raises(CustodianUnavailableError, match="right mount"):
        await custodian.unwrap(REGION, 1, b"vault:v1:AAAA", CONTEXT)
    with pytest.raises(CustodianUnavailableError, match="right mount"):
        await custodian.wrap(REGION, 1, wrap.new_key(), CONTEXT)
    assert await custodian.generations(REGION) == []
    await custodian.close()


async def test_what_the_server_refuses_says_what_to_do(transit: Mount, tmp_path: Path) -> None:
    """A wrong token, an engine that is not there or makes keys unasked, and a key that leaks."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("nonsense\n")
    owner = tmp_path / "owner"
    owner.touch(mode=0o600)
    owner.write_text(f"{TOKEN}\n")
    nowhere = f"transit:{transit.bao.url}/nowhere?token-file={owner}"
    wrong = transit.address.partition("?")[0] + f"?token-file={token}"
    for address, says in ((wrong, "refuses the token"), (nowhere, "secrets enable -path=nowhere")):
        custodian = open_custodian(address)
        with pytest.raises(CustodianConfigurationError, match=says):
            await custodian.check()
        await custodian.close()
    custodian = open_custodian(transit.address)
    await custodian.check()
    await transit.bao.call("POST", f"{transit.name}/keys/portvault-uk-1", exportable=True)
    with pytest.raises(CustodianConfigurationError, match="can be copied out"):
        await custodian.check()
    await transit.bao.call("POST", f"{transit.name}/config/keys", disable_upsert=False)
    with pytest.raises(CustodianConfigurationError, match="disable_upsert=true"):
        await custodian.check()
    await custodian.close()


async def test_a_sealed_or_silent_server_is_unavailable_in_bounded_time(tmp_path: Path) -> None:
    """Neither is destruction, neither hangs, and both say what to do."""
    server = Bao(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        mount = await server.mount()
        custodian = open_custodian(mount.address)
        await custodian.create(REGION, 1)
        wrapped = await custodian.wrap(REGION, 1, wrap.new_key(), CONTEXT)
        await server.call("POST", "sys/seal")
        with pytest.raises(CustodianUnavailableError, match="unseal it"):
            await custodian.unwrap(REGION, 1, wrapped, CONTEXT)
    finally:
        await asyncio.to_thread(server.stop)
    started = time.monotonic()
    with pytest.raises(CustodianUnavailableError, match="see that it runs"):
        await custodian.unwrap(REGION, 1, wrapped, CONTEXT)
    assert time.monotonic() - started < 15
    await custodian.close()


async def test_a_vault_lives_on_it(config: Config, transit: Mount, passport: bytes) -> None:
    """Upload, read, shred, seal and read on, with root keys that never leave the server."""
    config = replace(config, regions=("uk",), custodian=transit.address)
    async with open_vault(config, dsn=config.database) as vault, serving(vault) as api:
        order = await api.order()
        _, dead = await api.put(order, passport)
        _, living = await api.put(order, passport)
        path = f"/v1/documents/{dead['id']}/actions/shred"
        assert (await api.call("POST", path, json={"reason": "test"}))[0] == 200
        assert await seal(vault, OPERATOR, "uk") is not None
        assert await transit.keys() == ["portvault-uk-2", "portvault-uk-destroyed-1"]
        assert await api.get(living["id"]) == (200, passport)
        assert (await api.get(dead["id"]))[0] == 410
        assert (await vault.keyring.verify("uk")).findings == ()
        transit.token_file.unlink()
        vault.keyring.forget()
        assert (await api.get(living["id"]))[0] == 503
