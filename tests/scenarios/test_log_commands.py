"""The log's commands as people type them: export, verify, key, rotate-key, against a real vault."""

import json
import subprocess
import sys
from pathlib import Path

import asyncpg

import vault.audit.auditor
from tests.access_records import checkpoints
from tests.command_line import one_line
from tests.fixtures_process import VaultProcess


async def test_a_log_is_exported_audited_and_its_key_replaced(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """From the first record to the verdicts of three verifiers, with a change of key between."""
    made = vault_process
    token = (await made.json("token", "create", "--role", "compliance", "--region", "uk"))["token"]
    porting = (await made.json("token", "create", "--role", "porting", "--region", "uk"))["token"]
    order = ("order", "create", "--region", "uk", "--customer", "a", "--number", "+442079460123")
    assert (await made.run(*order, PORTVAULT_TOKEN=porting))[0] == 0
    first_key = (await made.json("log", "key"))["key"]
    second_key = (await made.json("log", "rotate-key"))["key"]
    shown = await made.json("log", "key")
    assert (shown["key"], shown["next"]) == (first_key, second_key)
    assert (await made.json("log", "rotate-key", "--finish"))["key"] == second_key
    assert (await made.run("log", "rotate-key", "--finish"))[0] == 1
    assert (await made.run(*order, PORTVAULT_TOKEN=porting))[0] == 0

    # In the database, of the running vault, of a file: with the key from before the change.
    kept = tmp_path / "held"
    kept.write_bytes(checkpoints(made.home / "objects/uk/log")[-1].read_bytes())
    verdict = (await made.json("log", "verify", "--held", str(kept)))["uk"]
    assert (verdict["intact"], verdict["complete"], verdict["findings"]) == (True, True, [])
    kept.write_text(kept.read_text().replace("portvault/uk\n", "portvault/uk\n9", 1))
    both = await made.json("log", "verify", PORTVAULT_REGIONS="uk,nz")
    assert [(region, both[region]["intact"]) for region in both] == [("uk", True), ("nz", True)]
    status, out, _ = await made.run("log", "verify", "--held", str(kept), "--json")
    assert (status, json.loads(out)["uk"]["consistent"]) == (32, False)
    live = ("log", "verify", "--server", made.url, "--region", "uk", "--key", first_key)
    verdict = (await made.json(*live, PORTVAULT_TOKEN=token))["uk"]
    assert (verdict["intact"], verdict["consistent"], verdict["findings"]) == (True, True, [])
    file, key = tmp_path / "log.jsonl", tmp_path / "key"
    key.write_text(first_key)
    export = ("log", "export", "--region", "uk", "-o", str(file))
    assert (await made.run(*export, PORTVAULT_TOKEN=token))[0] == 0
    on_file = ("log", "verify", "--file", str(file), "--key", str(key))
    verdict = (await made.json(*on_file))["uk"]
    assert (verdict["size"] > 8, verdict["findings"]) == (True, [])
    alone = [sys.executable, "-I", vault.audit.auditor.__file__, str(file), "--key", str(key)]
    done = subprocess.run(alone, capture_output=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["size"]) == (0, verdict["size"])
    records = [json.loads(line) for line in file.read_text().splitlines() if '"record"' in line]
    assert "log.rotate-key" in {item["record"]["action"] for item in records}

    # Afterwards the first key turns out to have been stolen: it counts up to where it signed.
    status, _, says = await made.run("log", "rotate-key", "--revoke", "x")
    assert (status, "no public key of a log" in says, one_line(says)) == (1, True, True)
    said = await made.json("log", "rotate-key", "--revoke", first_key)
    assert said == {"revoked": first_key}
    assert (await made.json("log", "key"))["key"] == second_key
    notes = json.loads((made.home.with_name("home-keys") / "signing.handovers").read_text())
    assert notes[-1].startswith("portvault-log-key-revoked/v1\n")
    assert first_key in notes[-1]
    live = (*live[:-1], second_key)
    verdict = (await made.json(*live, PORTVAULT_TOKEN=token))["uk"]
    assert (verdict["intact"], verdict["consistent"], verdict["findings"]) == (True, True, [])
    status, _, says = await made.run("log", "rotate-key", "--revoke", second_key)
    assert (status, one_line(says)) == (1, True), "the one that signs is not revoked"

    # The database's owner changes one record: each verifier says which, and what a script needs.
    conn = await made.database()
    try:
        await rewrite(conn, 3)
    finally:
        await conn.close()
    for command in (("log", "verify"), live):
        status, out, err = await made.run(*command, "--json", PORTVAULT_TOKEN=token)
        assert (status, json.loads(out)["uk"]["first_offending"]) == (8, {"intact": 3}), err
        assert "does not hold" in err


async def rewrite(conn: asyncpg.Connection, index: int) -> None:
    """Change a record as only the database's owner can."""
    await conn.execute("set session_replication_role = replica")
    await conn.execute(
        "update access_record set reference = 'T-9' from log_leaf l"
        " where l.record = id and l.region = 'uk' and l.index = $1",
        index,
    )
