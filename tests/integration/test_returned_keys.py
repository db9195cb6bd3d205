"""A destroyed root key that a careless restore brings back to a token or a transit engine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures_custodians import MODULE, PIN, Token
from tests.fixtures_process import VaultProcess
from tests.fixtures_transit import Mount

#: Another process, since a token's library reads its directory once.
_LABELS = f"""
import pkcs11
token = pkcs11.lib({MODULE!r}).get_token(token_label="portvault")
with token.open(user_pin={PIN!r}) as session:
    for item in session.get_objects({{pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}}):
        print(item[pkcs11.Attribute.LABEL])
"""
#: Before and after the seal that leaves the mark on a later number.
LOOKS = ["start", "doctor", "verify", "seal", "start", "doctor"]


def _labels() -> set[str]:
    done = subprocess.run([sys.executable, "-c", _LABELS], check=True, capture_output=True)
    return {*done.stdout.decode().split()}


async def _look(vault: VaultProcess, look: str) -> str:
    """Look in one of the ways, each in a process of its own; returns all that it says."""
    commands = {
        "start": ("keys", "status"),
        "seal": ("keys", "seal", "--force"),
        "doctor": ("doctor", "--json"),
        "verify": ("keys", "verify"),
    }
    status, out, says = await vault.run(*commands[look])
    if look == "doctor":
        rows = {row["check"]: row for row in json.loads(out)}
        assert (status, rows["custodian uk"]["verdict"]) == (1, "fail"), rows["custodian uk"]
        return str(rows["custodian uk"]["detail"])
    assert status == 0, says
    return out + says


async def _made(home: Path, database: str, address: str) -> VaultProcess:
    vault = VaultProcess(home, database=database, custodian=address)
    home.mkdir(mode=0o700)
    await vault.json("keys", "status")
    return vault


async def test_objects_that_come_back_to_a_token(
    tmp_path: Path, database: str, token: Token
) -> None:
    """All files of a copy that are not there any more: the key goes at each look, which says so."""
    vault = await _made(tmp_path / "home", database, token.address)
    copy = tmp_path / "copy"
    shutil.copytree(token.tokens, copy)
    await vault.json("keys", "seal", "--force")
    assert "portvault-uk-1" not in _labels()
    for look in LOOKS:
        _bring_back(copy, token.tokens)
        assert "portvault-uk-1" in _labels()
        assert "generation 1 of uk" in await _look(vault, look), look
        assert "portvault-uk-1" not in _labels(), look
    assert "came back" not in str(await vault.run("keys", "verify"))


async def test_each_object_by_itself(tmp_path: Path, database: str, token: Token) -> None:
    """A key without the record that it counts, as a copy of keys alone brings it, goes, too."""
    vault = await _made(tmp_path / "home", database, token.address)
    copy = tmp_path / "copy"
    shutil.copytree(token.tokens, copy)
    await vault.json("keys", "seal", "--force")
    keys = 0
    for file in _gone(copy, token.tokens):
        _bring_back(copy, token.tokens, only=file)
        came = "portvault-uk-1" in _labels()
        keys += came
        says = str(await vault.run("keys", "status"))
        assert ("came back" in says) == came
        assert "portvault-uk-1" not in _labels()
        assert (await vault.run("keys", "verify"))[0] == 0
    assert keys == 1


async def test_a_token_that_is_replaced_by_its_copy(
    tmp_path: Path, database: str, token: Token
) -> None:
    """Then the living key is gone, and so is the mark: nothing starts until both are one again."""
    vault = await _made(tmp_path / "home", database, token.address)
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(token.tokens, old)
    await vault.json("keys", "seal", "--force")
    shutil.copytree(token.tokens, new)
    shutil.rmtree(token.tokens)
    shutil.copytree(old, token.tokens)
    for command in (("keys", "status"), ("keys", "seal", "--force"), ("doctor",)):
        status, out, says = await vault.run(*command)
        assert status != 0
        assert "generation 2" in out + says
    # Not by the rows alone: what opens is not here.
    assert _labels() == {"portvault-uk-1"}
    _bring_back(new, token.tokens)
    assert "generation 1 of uk" in await _look(vault, "start")
    assert _labels() == {"portvault-uk-2"}


def _gone(copy: Path, tokens: Path) -> list[Path]:
    """Return the files of a copy that are no more."""
    files = [path.relative_to(copy) for path in sorted(copy.rglob("*")) if path.is_file()]
    return [file for file in files if not (tokens / file).exists()]


def _bring_back(copy: Path, tokens: Path, only: Path | None = None) -> None:
    for file in _gone(copy, tokens):
        if only in (None, file):
            shutil.copy2(copy / file, tokens / file)


@pytest.mark.parametrize("by", ["backup", "storage"])
async def test_a_key_that_comes_back_to_a_transit_engine(
    tmp_path: Path, database: str, transit: Mount, by: str
) -> None:
    """With the flags of a key that a backup was made of, or as it was: it goes, and it is said."""
    vault = await _made(tmp_path / "home", database, transit.address)
    await vault.json("keys", "seal", "--force")
    assert "portvault-uk-1" not in await transit.keys()
    for look in LOOKS:
        if by == "backup":
            await _restore(transit, "portvault-uk-1")
        else:
            # To whoever looks it is the same as one that a copy of the storage brings.
            await transit.bao.call("POST", f"{transit.name}/keys/portvault-uk-1")
        assert "portvault-uk-1" in await transit.keys()
        assert "generation 1 of uk" in await _look(vault, look), look
        assert "portvault-uk-1" not in await transit.keys(), look


async def test_a_key_of_another_name_is_not_seen(
    tmp_path: Path, database: str, transit: Mount
) -> None:
    """Nothing tells whose it is: docs/attacks.md says so."""
    vault = await _made(tmp_path / "home", database, transit.address)
    await vault.json("keys", "seal", "--force")
    await _restore(transit, "kept")
    assert "came back" not in await _look(vault, "seal")
    assert "kept" in await transit.keys()


async def test_a_living_key_that_can_be_copied_is_refused(
    tmp_path: Path, database: str, transit: Mount
) -> None:
    """So a backup of it is no secret while it lives; the engine never takes the flag back."""
    vault = await _made(tmp_path / "home", database, transit.address)
    flags = {"exportable": True, "allow_plaintext_backup": True}
    await transit.bao.call("POST", f"{transit.name}/keys/portvault-uk-1/config", **flags)
    status, _, says = await vault.run("keys", "seal", "--force")
    assert (status != 0, "can be copied out of the server" in says) == (True, True)


async def _restore(transit: Mount, name: str) -> None:
    """Restore a key that was copied out of another engine, where its flags allowed it."""
    other = await transit.bao.mount()
    flags = {"exportable": True, "allow_plaintext_backup": True}
    await transit.bao.call("POST", f"{other.name}/keys/portvault-uk-1", **flags)
    answer = await transit.bao.call("GET", f"{other.name}/backup/portvault-uk-1")
    backup = answer["data"]["backup"]
    await transit.bao.call("POST", f"{transit.name}/restore/{name}", backup=backup)
