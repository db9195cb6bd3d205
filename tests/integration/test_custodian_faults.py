"""Custodians in trouble: disks that are gone, tokens that vanish, and a vault that goes on."""

import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from keys import wrap
from keys.custodian import Custodian
from keys.custodians import open_custodian
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    KeyDestroyedError,
    KeyMissingError,
)
from tests.fixtures_custodians import Token
from tests.fixtures_server import OPERATOR, serving
from vault.actions.keys import seal
from vault.app import open_vault
from vault.config.settings import Config

REGION, CONTEXT = "uk", b"context"


@pytest.fixture
async def directories(tmp_path: Path) -> AsyncIterator[tuple[Custodian, Path, Path]]:
    """Give a custodian with a living key in two directories."""
    one, two = tmp_path / "one", tmp_path / "two"
    custodian = open_custodian(f"file:{one},{two}")
    for generation in (1, 2):
        await custodian.create(REGION, generation)
    yield custodian, one, two
    await custodian.close()


async def test_a_lost_directory_loses_no_key_and_stops_no_reading(
    directories: tuple[Custodian, Path, Path],
) -> None:
    """With one disk gone keys still open; nothing new is made and nothing counts as destroyed."""
    custodian, one, two = directories
    key = wrap.new_key()
    wrapped = await custodian.wrap(REGION, 1, key, CONTEXT)
    one.rename(one.with_name("unmounted"))
    assert await custodian.unwrap(REGION, 1, wrapped, CONTEXT) == key
    for attempt in (custodian.create(REGION, 3), custodian.destroy(REGION, 1), custodian.check()):
        with pytest.raises(CustodianUnavailableError, match="one"):
            await attempt
    one.with_name("unmounted").rename(one)
    await custodian.destroy(REGION, 1)
    assert not list(one.glob("uk-1.*")) + list(two.glob("uk-1.*"))
    assert await custodian.generations(REGION) == [2]


async def test_a_copy_that_comes_back_revives_nothing(
    directories: tuple[Custodian, Path, Path], tmp_path: Path
) -> None:
    """A directory restored from before a destruction is overruled by the other's mark."""
    custodian, one, _ = directories
    wrapped = await custodian.wrap(REGION, 1, wrap.new_key(), CONTEXT)
    shutil.copytree(one, tmp_path / "copy")
    await custodian.destroy(REGION, 1)
    shutil.rmtree(one)
    (tmp_path / "copy").rename(one)
    with pytest.raises(KeyDestroyedError):
        await custodian.unwrap(REGION, 1, wrapped, CONTEXT)
    assert await custodian.generations(REGION) == [2]


async def test_an_empty_mount_point_is_not_destruction(tmp_path: Path) -> None:
    """A directory that holds nothing, or another's keys, is unavailable, and is left as it is."""
    custodian = open_custodian(f"file:{tmp_path}/keys")
    await custodian.create(REGION, 1)
    wrapped = await custodian.wrap(REGION, 1, wrap.new_key(), CONTEXT)
    (tmp_path / "keys").rename(tmp_path / "away")
    (tmp_path / "keys").mkdir(mode=0o700)
    other = open_custodian(f"file:{tmp_path}/other")
    await other.create(REGION, 1)
    for replaced in (False, True):
        if replaced:
            (tmp_path / "keys").rmdir()
            (tmp_path / "other").rename(tmp_path / "keys")
        before = sorted((tmp_path / "keys").iterdir())
        for attempt in (
            custodian.unwrap(REGION, 1, wrapped, CONTEXT),
            custodian.create(REGION, 2),
            custodian.destroy(REGION, 1),
            custodian.generations(REGION),
            custodian.check(),
        ):
            with pytest.raises(CustodianUnavailableError, match="keys"):
                await attempt
        assert sorted((tmp_path / "keys").iterdir()) == before


async def test_others_may_not_look(tmp_path: Path) -> None:
    """Keys, directory and passphrase that others may read are refused with the mending command."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("one two three\n")
    address = f"file:{tmp_path}/keys?passphrase-file={secret}"
    await open_custodian(address).create(REGION, 1)
    assert len((tmp_path / "keys" / "uk-1.key").read_bytes()) > wrap.KEY_BYTES
    for path, mode in ((tmp_path / "keys", 0o755), (tmp_path / "keys/uk-1.key", 0o640)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(CustodianConfigurationError, match="chmod"):
            await open_custodian(address).check()
        path.chmod(before)
    secret.chmod(0o644)
    with pytest.raises(CustodianConfigurationError, match="chmod 600"):
        await open_custodian(address).check()
    secret.chmod(0o600)
    secret.write_text("four five six\n")
    with pytest.raises(CustodianConfigurationError, match="passphrase"):
        await open_custodian(address).check()


@pytest.mark.parametrize("junk", [None, b"", b"[]", b'{"id": "00", "v": 1}'])
async def test_a_marker_that_is_lost_is_written_by_hand(tmp_path: Path, junk: bytes | None) -> None:
    """The error has the line, where no passphrase needs more, with the id that is known."""
    one, two = tmp_path / "one", tmp_path / "two"
    marker, key = one / "custodian.json", wrap.new_key()
    custodian = open_custodian(f"file:{one}")
    await custodian.create(REGION, 1)
    wrapped = await custodian.wrap(REGION, 1, key, CONTEXT)
    before = marker.read_bytes()
    for asked, known in (
        (custodian, before),
        (open_custodian(f"file:{one},{shutil.copytree(one, two)}"), before),
        (open_custodian(f"file:{one}"), None),
    ):
        marker.unlink()
        if junk is not None:
            marker.write_bytes(junk)
            marker.chmod(0o600)
        with pytest.raises(CustodianConfigurationError, match="from a copy") as refused:
            await asked.check()
        line = re.search(r'write (\{"id": "[0-9a-f]{32}", "v": 1\}) into it', str(refused.value))
        assert line is not None
        assert known in {None, line[1].encode() + b"\n"}
        marker.write_text(line[1])
        marker.chmod(0o600)
        await asked.check()
        assert await asked.unwrap(REGION, 1, wrapped, CONTEXT) == key
        marker.write_bytes(before)
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text("one two three\n")
    custodian = open_custodian(f"file:{tmp_path}/sealed?passphrase-file={tmp_path}/secret")
    await custodian.create(REGION, 1)
    (tmp_path / "sealed" / "custodian.json").write_bytes(b"junk")
    with pytest.raises(CustodianConfigurationError, match="from a copy") as refused:
        await custodian.check()
    assert "write {" not in str(refused.value)


async def test_a_custodian_that_was_changed_names_the_one_before(tmp_path: Path) -> None:
    """Where the new one is empty, and where it has keys of others, the error says what to set."""
    for region in (None, "sg"):
        custodian = open_custodian(f"file:{tmp_path}/new")
        if region is not None:
            await custodian.create(region, 1)
        with pytest.raises((CustodianUnavailableError, KeyMissingError), match="custodian_before"):
            await custodian.unwrap(REGION, 1, bytes(60), CONTEXT)


async def test_a_token_that_is_lost_comes_back(token: Token) -> None:
    """While the token is away it is unavailable, never destroyed; then its keys open again."""
    custodian = open_custodian(token.address)
    await custodian.create(REGION, 1)
    key = wrap.new_key()
    wrapped = await custodian.wrap(REGION, 1, key, CONTEXT)
    away = token.tokens.with_name("away")
    token.tokens.rename(away)
    token.tokens.mkdir()
    for _ in range(2):
        with pytest.raises((CustodianUnavailableError, CustodianConfigurationError)):
            await custodian.unwrap(REGION, 1, wrapped, CONTEXT)
    token.tokens.rmdir()
    away.rename(token.tokens)
    assert await custodian.unwrap(REGION, 1, wrapped, CONTEXT) == key
    await custodian.close()


async def test_a_vault_lives_on_a_token(
    config: Config, token: Token, passport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Upload, read, shred, seal and read on, with root keys that never leave the token."""
    config = replace(config, regions=("uk",), custodian=token.address)
    async with open_vault(config, dsn=config.database) as vault, serving(vault) as api:
        order = await api.order()
        _, dead = await api.put(order, passport)
        _, living = await api.put(order, passport)
        path = f"/v1/documents/{dead['id']}/actions/shred"
        assert (await api.call("POST", path, json={"reason": "test"}))[0] == 200
        result = await seal(vault, OPERATOR, "uk")
        assert result is not None
        assert await api.get(living["id"]) == (200, passport)
        assert (await api.get(dead["id"]))[0] == 410
        assert (await vault.keyring.verify("uk")).findings == ()
        token.tokens.rename(token.tokens.with_name("away"))
        token.tokens.mkdir()
        vault.keyring.forget()
        status, _ = await api.get(living["id"])
        assert status == 503
        token.tokens.rmdir()
        token.tokens.with_name("away").rename(token.tokens)
        token.write_pin("9999")
        status, problem = await api.get(living["id"])
        assert status == 503
        assert "PIN" not in problem["detail"]
        assert "PIN" in caplog.text, "the operator reads why"
        assert "9999" not in f"{problem} {caplog.text}"
