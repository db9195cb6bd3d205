"""Standbys: a seal waits for those that could be promoted, and one that lagged is refused."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from keys import seal as seal_module
from keys.errors import RolledBackError, StandbyBehindError
from tests.key_house import REGION, House, build
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.migrate import migrate


@dataclass
class Pair:
    """A primary, and the home of a standby that streams from it."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres

    async def on_standby(self, statement: str) -> None:
        """Execute a statement on the standby."""
        conn = await asyncpg.connect(self.standby.dsn)
        try:
            await conn.execute(statement)
        finally:
            await conn.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that PostgreSQL's own account may pass through."""
    made = Path(tempfile.mkdtemp(prefix="portvault-standby-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def pair(place: Path) -> AsyncIterator[Pair]:
    """Run a primary and a standby that was copied from it."""
    primary = EmbeddedPostgres(place / "primary", durable=False)
    standby = EmbeddedPostgres(place / "standby", durable=False)
    dsn = await primary.start()
    try:
        await migrate(dsn)
        # The standby comes to the primary's socket, and its server passes no closed directory.
        (place / "primary").chmod(0o711)
        data = place / "primary" / "postgres" / "data"
        rules = data / "pg_hba.conf"
        rules.write_text("local replication all trust\n" + rules.read_text())
        conn = await asyncpg.connect(dsn)
        await conn.execute("select pg_reload_conf()")
        await conn.close()
        _copy(primary, dsn, place / "standby" / "postgres")
        await standby.start()
        try:
            yield Pair(primary, standby)
        finally:
            await standby.stop()
    finally:
        await primary.stop()


def _copy(primary: EmbeddedPostgres, dsn: str, base: Path) -> None:
    """Make a standby's data with pg_basebackup, owned by the account that will run it."""
    base.mkdir(parents=True, mode=0o700)
    base.parent.chmod(0o711)
    subprocess.run(
        [
            str(primary.bin("pg_basebackup")),
            f"--dbname={dsn}&application_name=harbour",
            f"--pgdata={base / 'data'}",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    owner = (base.parents[1] / "primary" / "postgres" / "data").stat()
    for path in (base, *base.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture
async def house(pair: Pair, tmp_path: Path) -> AsyncIterator[House]:
    """Plant a tree on the primary."""
    async with build(pair.primary.dsn, tmp_path) as made:
        await made.keyring.start_region(REGION)
        yield made


async def test_a_seal_waits_for_a_standby_that_lags(
    house: House, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a standby has not replayed the switch, the old root is kept; afterwards it dies."""
    monkeypatch.setattr(seal_module, "STANDBY_WAIT_SECONDS", 0.5)
    keys = await house.put(2)
    await pair.on_standby("select pg_wal_replay_pause()")
    await house.shred(keys[0])
    with pytest.raises(StandbyBehindError, match="harbour"):
        await house.keyring.seal(REGION)
    assert len(await house.custodian.generations(REGION)) == 2
    assert not await house.sealed()
    await pair.on_standby("select pg_wal_replay_resume()")
    monkeypatch.setattr(seal_module, "STANDBY_WAIT_SECONDS", 10.0)
    await house.keyring.seal(REGION)
    assert await house.sealed() == {keys[0]}
    await house.check()


async def test_a_named_standby_that_is_away_keeps_the_old_root(
    house: House, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that the configuration names counts although it is not connected."""
    monkeypatch.setattr(seal_module, "STANDBY_WAIT_SECONDS", 0.2)
    house.keyring._standbys = ("harbour", "lighthouse")
    (key,) = await house.put()
    await house.shred(key)
    with pytest.raises(StandbyBehindError, match="lighthouse"):
        await house.keyring.seal(REGION)
    assert not await house.sealed()


async def test_a_standby_that_missed_a_seal_is_refused_and_restored(
    house: House, pair: Pair, tmp_path: Path
) -> None:
    """Promoted, it names a generation that is no more; a restore makes it whole."""
    keys = await house.put(3)
    await house.keyring.mirror(REGION)
    await pair.on_standby("select pg_wal_replay_pause()")
    await pair.standby.stop()
    await house.shred(keys[0])
    await house.keyring.seal(REGION)
    await pair.primary.stop()
    await pair.standby.start()
    await pair.on_standby("select pg_promote()")
    async with build(pair.standby.dsn, tmp_path, house.ledger, house) as promoted:
        with pytest.raises(RolledBackError):
            await promoted.keyring.start_region(REGION)
        async with promoted.pool.acquire() as conn, conn.transaction():
            merged = await promoted.keyring.restore(conn, REGION)
        assert (merged.source, merged.keys_dropped) == ("mirror", 1)
        await promoted.keyring.seal(REGION, force=True)
        await promoted.check(claimed={keys[0]})
