"""An old backup comes back: the living open again, and the shredded stay shredded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import SCAN, get, one_line, scan_of, token_of
from tests.fixtures_process import VaultProcess


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[VaultProcess]:
    """Serve a vault that mirrors its tree every second."""
    made = VaultProcess(tmp_path / "home", mirror_interval_seconds="1")
    await made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        await made.stop()


async def put(vault: VaultProcess, token: dict[str, str], order: str, *more: str) -> str:
    """Put another document into an order and return its id."""
    command = ("put", str(SCAN), "--order", order, "--kind", "passport", *more)
    made = await vault.json(*command, **token)
    return str(made["id"])


def lose_database(vault: VaultProcess) -> None:
    """Lose what the embedded PostgreSQL kept."""
    base = vault.home / "postgres"
    base.rename(vault.home / f"lost-{len(list(vault.home.glob('lost-*')))}")


def states(restored: list[dict[str, Any]]) -> dict[str, str]:
    """Return each document's state."""
    return {line["document"]: line["state"] for line in restored[0]["documents"]}


async def test_a_dump_from_before_is_brought_up_to_date(
    vault: VaultProcess, tmp_path: Path
) -> None:
    """What lives is byte-identical, what was shredded since stays so, and the log verifies."""
    token = await token_of(vault, "porting")
    order, living = await scan_of(vault, token)
    sealed = await put(vault, token, order, "--again")
    old = str(tmp_path / "old.dump")
    await vault.json("backup", old)
    assert Path(old).stat().st_mode & 0o777 == 0o600
    await vault.json("shred", sealed, "--reason", "asked", **token)
    await vault.json("keys", "seal")
    pending, later = (
        await put(vault, token, order, "--again"),
        await put(vault, token, order, "--again"),
    )
    await vault.json("shred", pending, "--reason", "asked", **token)
    await asyncio.sleep(3)
    vault.kill()
    lose_database(vault)

    status, _, says = await vault.run("serve")
    assert (status, one_line(says)) == (1, True)
    assert "portvault restore" in says
    aside = vault.home / "objects" / "uk" / "documents" / later
    content = aside.read_bytes()
    aside.unlink()
    refused = await vault.run("restore", old, "--dry-run", "--json")
    assert (refused[0], one_line(refused[2])) == (1, True)
    assert "--leave-unknown" in refused[2]
    assert await vault.run("restore", "--json") == refused
    aside.write_bytes(content)
    plan = await vault.json("restore", "--dry-run")
    assert states(plan) == {
        living: "living",
        sealed: "shredded",
        pending: "shredded",
        later: "recovered",
    }
    assert await vault.json("restore") == plan

    await vault.start()
    target = tmp_path / "back.jpg"
    for document in (living, later):
        await vault.json(*get(document, target), **token)
        assert target.read_bytes() == SCAN.read_bytes()
    shown = await vault.json("show", later, **token)
    assert (shown["not_known"], shown["filename"]) == (["filename"], None)
    assert "recovered_at" in (await vault.run("order", "show", order, **token))[1]
    status, _, says = await vault.run(*get(sealed, tmp_path / "none"), **token)
    assert (status, says) == (3, "portvault: The document was shredded.\n")
    assert (await vault.json("keys", "verify"))[0]["findings"] == []
    verdict = (await vault.json("log", "verify"))["uk"]
    assert verdict["intact"]
    assert verdict["consistent"]
    assert await put(vault, token, order, "--again")


async def test_what_only_the_bucket_knows_is_left_there_when_asked(
    vault: VaultProcess, tmp_path: Path
) -> None:
    """Without a later backup the vault goes on, and keeps object and key of what has no row."""
    token = await token_of(vault, "porting")
    order, living = await scan_of(vault, token)
    await vault.json("backup", str(tmp_path / "old.dump"))
    later = await put(vault, token, order, "--again")
    # What was here already is no document of its own, and not lost.
    assert await put(vault, token, order) == living
    await asyncio.sleep(3)
    vault.kill()
    lose_database(vault)
    aside = vault.home / "objects" / "uk" / "documents" / later
    aside.rename(tmp_path / "aside")
    done = await vault.json("restore", str(tmp_path / "old.dump"), "--leave-unknown")
    assert states(done) == {living: "living", later: "unknown"}
    await vault.start()
    await vault.json(*get(living, tmp_path / "back.jpg"), **token)
    status, _, _ = await vault.run(*get(later, tmp_path / "none"), **token)
    assert status == 3
    assert not aside.exists()
    # Two documents, the order's details, and the index of numbers.
    assert (await vault.json("keys", "verify"))[0]["keys"] == 4


async def test_a_running_vault_is_not_restored(vault: VaultProcess) -> None:
    """While a server uses the database nothing is changed under it."""
    await token_of(vault, "porting")
    status, _, says = await vault.run("restore")
    assert (status, one_line(says)) == (1, True)
    assert "stop every" in says
