"""`portvault keys`: what an operator sees of the trees, and the move to another custodian."""

import asyncio
from pathlib import Path

from tests.command_line import SCAN, get, one_line, scan_of, token_of
from tests.fixtures_process import VaultProcess


async def test_status_tells_what_an_operator_asks(vault_process: VaultProcess) -> None:
    """Generation, age, documents, depth, what waits, and what the custodian's destroy is worth."""
    vault = vault_process
    token = await token_of(vault, "porting")
    await scan_of(vault, token)
    (row,) = await vault.json("keys", "status")
    # The order has a scope, and so has the index of numbers.
    assert (row["region"], row["documents"], row["scopes"], row["depth"]) == ("uk", 1, 2, 1)
    assert (row["dirty_scopes"], row["destroy_level"]) == (0, 0)
    assert row["age_seconds"] >= 0
    status, out, _ = await vault.run("keys", "status")
    assert status == 0
    assert "level 0" in out
    assert "flash" in out


async def test_a_clean_stop_writes_what_came_last_into_the_bucket(
    vault_process: VaultProcess,
) -> None:
    """The tree's copy has the key of what was put just before, however long the interval is."""
    vault = vault_process
    await scan_of(vault, await token_of(vault, "porting"))
    copies = vault.home / "objects" / "uk" / "keys"
    before = set(copies.rglob("*"))
    assert await vault.stop() == 0
    assert set(copies.rglob("*")) > before


async def test_a_clean_stop_of_a_worker_writes_what_came_last_into_the_bucket(
    tmp_path: Path,
) -> None:
    """A worker of its own does as the server does, that has none here."""
    vault = VaultProcess(tmp_path / "home", worker="false", mirror_interval_seconds="3600")
    await vault.start()
    try:
        worker = await vault.command("worker")
        try:
            copies = vault.home / "objects" / "uk" / "keys"
            async with asyncio.timeout(60):
                while not list(copies.rglob("*")):
                    await asyncio.sleep(0.2)
            await scan_of(vault, await token_of(vault, "porting"))
            before = set(copies.rglob("*"))
            await asyncio.sleep(1)
            assert set(copies.rglob("*")) == before
            worker.terminate()
            async with asyncio.timeout(30):
                assert await worker.wait() == 0
        finally:
            if worker.returncode is None:
                worker.kill()
        assert set(copies.rglob("*")) > before
    finally:
        await vault.stop()


async def test_verify_opens_every_key_and_names_what_does_not(vault_process: VaultProcess) -> None:
    """A wrap that was damaged in the database is found and named."""
    vault = vault_process
    token = await token_of(vault, "porting")
    _, document = await scan_of(vault, token)
    (walk,) = await vault.json("keys", "verify")
    assert (walk["nodes"], walk["scopes"], walk["keys"], walk["findings"]) == (1, 2, 3, [])
    conn = await vault.database()
    await conn.execute("update data_key set wrap = set_byte(wrap, 20, get_byte(wrap, 20) # 1)")
    await conn.close()
    status, out, says = await vault.run("keys", "verify")
    assert (status, one_line(says)) == (1, True)
    assert f"data_key.wrap of {document} in uk does not open" in out


async def test_a_region_moves_to_another_custodian(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """With both configured the next generation is made at the new one, and the old one is empty."""
    vault = vault_process
    token = await token_of(vault, "porting")
    _, document = await scan_of(vault, token)
    status, _, says = await vault.run("keys", "rotate-custodian", "--region", "uk")
    assert (status, one_line(says)) == (1, True)
    assert "custodian_before" in says
    await vault.stop()
    old, new = vault.home.with_name("home-keys"), tmp_path / "new-keys"
    (vault.home / "portvault.toml").write_text(
        f'[region.uk]\ncustodian = "file:{new}"\ncustodian_before = "file:{old}"\n'
    )
    await vault.start()
    await vault.json(*get(document, tmp_path / "before.jpg"), **token)
    moving = {row["check"]: row for row in await vault.json("doctor")}["custodian uk"]
    assert (moving["verdict"], "rotate-custodian" in moving["detail"]) == ("warn", True)
    await vault.json("keys", "rotate-custodian", "--region", "uk")
    assert not list(old.glob("uk-*.key"))
    (made,) = new.glob("uk-*.key")
    moved = {row["check"]: row for row in await vault.json("doctor")}["custodian uk"]
    assert "done, take custodian_before out" in moved["detail"]
    again = await vault.json("keys", "rotate-custodian", "--region", "uk")
    assert again == {"region": "uk", "result": "nothing to move"}
    assert list(new.glob("uk-*.key")) == [made]
    await vault.stop()
    (vault.home / "portvault.toml").write_text(f'[region.uk]\ncustodian = "file:{new}"\n')
    await vault.start()
    await vault.json(*get(document, tmp_path / "after.jpg"), **token)
    assert (tmp_path / "after.jpg").read_bytes() == SCAN.read_bytes()
    assert (await vault.json("keys", "verify"))[0]["findings"] == []
