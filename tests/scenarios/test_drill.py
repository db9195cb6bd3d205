"""Backups and shredding do not fight: the drill holds, and its attacker can win when it should."""

import json
import os
import subprocess
from pathlib import Path

import asyncpg
import pytest

from keys import wrap
from tests.fixtures_postgres import memory
from tests.key_house import REGION, Ledger, build
from vault.trials.attackers import Attacker

ROOT = Path(__file__).parents[2]


def test_the_drill_holds() -> None:
    """Nothing sealed opens from any backup, and every living document comes back from each."""
    environment = dict(os.environ)
    # Nothing here is about disks, and a dozen clusters wait for one.
    if (place := memory()) is not None:
        environment["TMPDIR"] = str(place)
    done = subprocess.run(
        [ROOT / "scripts" / "drill", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    lines = shown["documents"]
    assert {line["state"] for line in lines} == {"living", "shredded", "sealed"}
    assert [line["opened"] for line in lines] == [line["state"] != "sealed" for line in lines]
    assert all(line["holds"] for line in lines)
    streams = {line["ended_by"]: line for line in shown["streams"]}
    assert set(streams) == {"nothing", "revoked", "restricted", "shredded", "sealed"}
    assert [name for name, line in streams.items() if line["whole"]] == ["nothing"]
    assert all(line["holds"] for line in streams.values())


@pytest.mark.parametrize("linked", [False, True], ids=["as-built", "generations-linked"])
async def test_the_attacker_wins_where_a_generation_opens_the_one_before(
    database: str, tmp_path: Path, *, linked: bool
) -> None:
    """One wrap of the old root under the new generation would be enough, and it is found."""
    async with build(database, tmp_path, Ledger()) as house:
        await house.keyring.start_region(REGION)
        (key,) = await house.put()
        attacker = Attacker(REGION)
        await attacker.take_database(database)
        conn = await asyncpg.connect(database)
        (head,) = await conn.fetch("select * from key_tree")
        context = wrap.root_context(REGION, head["generation"])
        old = await house.custodian.unwrap(REGION, head["generation"], head["root_wrap"], context)
        await house.shred(key)
        result = await house.keyring.seal(REGION)
        assert result is not None
        if linked:
            canary = await house.custodian.wrap(
                REGION, result.new_generation, old, b"portvault/canary/v1"
            )
            await conn.execute(
                "update key_generation set canary = $1 where state = 'active'", canary
            )
        await conn.close()
        await attacker.take_database(database)
        attacker.take_bucket(tmp_path / "objects")
        assert attacker.take_custodian(tmp_path / "keys") == 1
        attacker.learn()
        assert (house.data_keys[key] in attacker.keys) == linked
