"""A root key counts as destroyed when its custodian says so; one that comes back is found."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from keys.custodians.file import FileCustodian
from keys.errors import (
    CustodianUnavailableError,
    ForeignKeysError,
    IntegrityError,
    KeyMissingError,
    KeysError,
    RolledBackError,
)
from keys.keyring import Keyring
from keys.seal import CANARY_CONTEXT
from tests.fixtures_process import VaultProcess
from tests.key_house import REGION, FaultyCustodian, House, build
from vault.adapters.directory import DirectoryStore
from vault.migrate import migrate
from vault.sql.documents import LivingRows


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[House]:
    """Plant a tree."""
    async with build(database, tmp_path) as made:
        await made.keyring.start_region(REGION)
        yield made


@pytest.mark.parametrize(
    "answer",
    [
        IntegrityError("no"),
        CustodianUnavailableError("not now"),
        KeyMissingError("custodian", REGION, 1),
        None,
    ],
    ids=["other bytes", "away", "missing", "it opens"],
)
async def test_only_that_it_is_gone_counts(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: KeysError | None
) -> None:
    """Whatever else the custodian answers about a canary, nothing is marked irrecoverable."""
    unwrap = FaultyCustodian.unwrap

    async def answered(
        self: FaultyCustodian, region: str, generation: int, wrapped: bytes, context: bytes
    ) -> bytes:
        if context != CANARY_CONTEXT:
            return await unwrap(self, region, generation, wrapped, context)
        if answer is None:
            return bytes(32)
        raise answer

    keys = await house.put(2)
    await house.shred(keys[0])
    monkeypatch.setattr(FaultyCustodian, "unwrap", answered)
    with pytest.raises(KeysError):
        await house.keyring.seal(REGION)
    assert await house.sealed() == set()
    monkeypatch.undo()
    await house.keyring.seal(REGION)
    assert await house.sealed() == {keys[0]}
    await house.check()


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "mark lost"])
@pytest.mark.parametrize("look", ["seal", "start", "worker"])
async def test_a_key_that_comes_back_is_destroyed_again(
    house: House, caplog: pytest.LogCaptureFixture, look: str, *, marked: bool
) -> None:
    """A careless copy opens what was sealed until the next look, which destroys it and shouts."""
    file = house.place / "keys" / "uk-1.key"
    shutil.copy2(file, house.place / "copy")
    keys = await house.put(2)
    await house.shred(keys[0])
    await house.keyring.seal(REGION)
    shutil.copy2(house.place / "copy", file)
    if not marked:
        (house.place / "keys" / "uk.destroyed").unlink()
    caplog.clear()
    if look == "seal":
        await house.keyring.seal(REGION, force=True)
    elif look == "start":
        await house.keyring.start_region(REGION)
    else:
        assert await house.keyring.destroy_returned(REGION) == [1]
    assert not file.exists()
    (said,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert "generation 1 of uk" in said.getMessage()
    assert await house.keyring.destroy_returned(REGION) == []
    await house.check()


@pytest.mark.parametrize(
    "forged",
    [
        "update key_generation set state = 'destroyed', destroyed_at = now()",
        # The tree is said to lie under a later one, too, so that its own looks old.
        """
        insert into key_generation (region, generation, state) values ('uk', 9, 'intended');
        update key_generation set state = 'destroyed', destroyed_at = now() where generation = 1;
        update key_tree set generation = 9
        """,
    ],
    ids=["destroyed", "and the tree"],
)
async def test_rows_have_no_living_key_destroyed(house: House, forged: str) -> None:
    """Who writes the database's rows, and has no custodian, ends no root key that is needed."""
    await house.put(2)
    await house.pool.execute(forged)
    assert await house.keyring.destroy_returned(REGION) == []
    assert (house.place / "keys" / "uk-1.key").exists()


async def test_a_missing_key_is_not_called_rolled_back(house: House) -> None:
    """Where the custodian lost a key it is named; where it destroyed it, the database is old."""
    await house.put()
    await house.keyring.seal(REGION, force=True)
    file = house.place / "keys" / "uk-2.key"
    file.rename(house.place / "away")
    house.keyring.forget()
    for attempt in (house.keyring.start_region(REGION), house.keyring.seal(REGION, force=True)):
        with pytest.raises(KeyMissingError, match="generation 2 of uk"):
            await attempt
    (house.place / "away").rename(file)
    async with house.pool.acquire() as conn:
        await house.keyring.start_region(REGION)
        (before,) = await conn.fetch("select * from key_tree")
        await house.keyring.seal(REGION, force=True)
        await conn.execute(
            "update key_tree set generation = $1, root_wrap = $2",
            before["generation"],
            before["root_wrap"],
        )
    house.keyring.forget()
    with pytest.raises(RolledBackError):
        await house.keyring.start_region(REGION)


async def test_doctor_destroys_what_came_back(tmp_path: Path, database: str) -> None:
    """`portvault doctor` finds it without a server, destroys it, and fails once."""
    vault = VaultProcess(tmp_path / "home", database=database)
    vault.home.mkdir(mode=0o700)
    await vault.json("keys", "status")
    (file,) = (tmp_path / "home-keys").glob("uk-1.key")
    shutil.copy2(file, tmp_path / "copy")
    await vault.json("keys", "seal", "--force")
    shutil.copy2(tmp_path / "copy", file)
    status, out, _ = await vault.run("doctor", "--json")
    assert status == 1
    assert "root key of generation 1 of uk had come back" in out
    assert not file.exists()
    _, out, _ = await vault.run("doctor", "--json")
    verdicts = {row["check"]: row["verdict"] for row in json.loads(out)}
    assert verdicts["custodian uk"] == "warn"


async def test_one_that_comes_back_where_the_region_was_before(
    tmp_path: Path, database: str
) -> None:
    """A directory that another region uses still is looked at, by `doctor` and each start."""
    vault = VaultProcess(tmp_path / "home", database=database, regions="uk,sg")
    vault.home.mkdir(mode=0o700)
    old, new = tmp_path / "home-keys", tmp_path / "new"
    await vault.json("keys", "status")
    file = old / "uk-1.key"
    shutil.copy2(file, tmp_path / "copy")
    moved = f'[region.uk]\ncustodian = "file:{new}"\n'
    (vault.home / "portvault.toml").write_text(moved)
    status, _, says = await vault.run("keys", "status")
    assert (status != 0, "custodian_before" in says) == (True, True)
    (vault.home / "portvault.toml").write_text(moved + f'custodian_before = "file:{old}"\n')
    await vault.json("keys", "rotate-custodian", "--region", "uk")
    assert not file.exists()
    (vault.home / "portvault.toml").write_text(moved)
    shutil.copy2(tmp_path / "copy", file)
    status, out, _ = await vault.run("doctor", "--json")
    assert (status, file.exists()) == (1, False)
    assert "root key of generation 1 of uk had come back to a custodian where" in out
    shutil.copy2(tmp_path / "copy", file)
    status, _, says = await vault.run("keys", "status")
    assert (status, file.exists()) == (0, False)
    assert f"generation 1 of uk came back to file:{old}" in says
    assert (old / "sg-1.key").exists()


@pytest.mark.parametrize("owner", [0, 65534], ids=["root", "nobody"])
async def test_whatever_lies_in_the_place_of_a_destroyed_key_is_taken_away(
    owner: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Loose, read-only or foreign copies, links and pipes go, by `destroy` after `check` let in."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with TemporaryDirectory() as name:
        place = Path(name)
        os.chown(place, owner, owner)
        os.seteuid(owner)
        try:
            await _walk_through_what_comes_back(place)
        finally:
            os.seteuid(0)
    said = "belongs to another user" in caplog.text
    assert said == (owner != 0)


async def _walk_through_what_comes_back(place: Path) -> None:
    custodian = FileCustodian(str(place / "keys"))
    file, elsewhere = place / "keys" / "uk-1.key", place / "elsewhere"
    await custodian.create(REGION, 1)
    copy = file.read_bytes()
    await custodian.destroy(REGION, 1)

    def foreign() -> None:
        file.write_bytes(copy)
        owner = os.geteuid()
        os.seteuid(0)
        os.chown(file, 1, 1)
        file.chmod(0o600)
        os.seteuid(owner)

    def written(mode: int) -> None:
        file.write_bytes(copy)
        file.chmod(mode)

    def linked(link: Callable[[Path], None]) -> None:
        elsewhere.write_bytes(copy)
        link(elsewhere)

    for come_back in (
        partial(written, 0o644),
        partial(written, 0o400),
        partial(written, 0),
        foreign,
        partial(linked, file.symlink_to),
        partial(linked, file.hardlink_to),
        partial(elsewhere.rename, file),
        partial(os.mkfifo, file),
        partial(file.symlink_to, place / "nowhere"),
    ):
        come_back()
        await custodian.check()
        assert await custodian.returned(REGION) == [1]
        await custodian.destroy(REGION, 1)
        assert not os.path.lexists(file)
        assert await custodian.returned(REGION) == []
    # These are no keys, and stop nothing.
    file.mkdir()
    (file / "uk-1.key").write_bytes(copy)
    file.with_name("uk-01.key").write_bytes(copy)
    await custodian.check()
    assert await custodian.returned(REGION) == []
    await custodian.create(REGION, 2)
    await custodian.destroy(REGION, 2)


async def test_no_tree_is_begun_beside_the_keys_of_another_database(
    empty_database: str, house: House
) -> None:
    """With its disk not mounted an empty database and bucket end no root key of the real one."""
    await house.put(2)
    await migrate(empty_database)
    custodian = FileCustodian(str(house.place / "keys"))
    bucket = DirectoryStore(house.place / "empty")
    async with asyncpg.create_pool(empty_database, min_size=1) as pool:
        living = LivingRows()
        keyring = Keyring(pool, {REGION: custodian}, {REGION: bucket}, living, cache_seconds=1)
        for _ in range(2):
            with pytest.raises(ForeignKeysError, match="generation 1.*mounted"):
                await keyring.start_region(REGION)
        assert await custodian.generations(REGION) == [1]
        # A start that was killed goes on with the key that it made.
        await pool.execute(
            "insert into key_generation (region, generation, state) values ('uk', 1, 'intended')"
        )
        await keyring.start_region(REGION)
    await bucket.close()


async def test_a_key_that_comes_back_as_a_link_is_destroyed_again(house: House) -> None:
    """The link goes, so that seals go on; what it leads to is somebody else's file and is left."""
    file, copy = house.place / "keys" / "uk-1.key", house.place / "copy"
    shutil.copy2(file, copy)
    await house.keyring.seal(REGION, force=True)
    before = copy.read_bytes()
    file.symlink_to(copy)
    await house.keyring.seal(REGION, force=True)
    assert not file.is_symlink()
    assert copy.read_bytes() == before
    await house.check()
