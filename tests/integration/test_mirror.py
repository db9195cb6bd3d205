"""The key tree's copy in the bucket: whole, opened before it counts, and proof of a rollback."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keys import seal as seal_module
from keys.errors import IntegrityError, RolledBackError
from keys.mirror import Mirror
from tests.key_house import REGION, House, build


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[House]:
    """Plant a tree."""
    async with build(database, tmp_path) as made:
        await made.keyring.start_region(REGION)
        yield made


async def test_every_seal_adds_a_segment_that_holds_what_changed(house: House) -> None:
    """A seal writes the tree's changes to the bucket before the old generation dies."""
    keys = await house.put(3)
    await house.shred(keys[0])
    await house.keyring.seal(REGION)
    await house.shred(keys[1])
    await house.keyring.seal(REGION)
    names = await house.segments()
    assert len(names) == 3
    walk = await house.keyring.verify(REGION)
    assert (walk.scopes, walk.keys, walk.findings) == (1, 1, ())


async def test_the_mirror_is_written_between_seals_only_when_something_changed(
    house: House,
) -> None:
    """An idle tree costs the bucket nothing; an upload is mirrored without a seal."""
    assert not await house.keyring.mirror(REGION)
    await house.put()
    assert await house.keyring.mirror(REGION)
    assert not await house.keyring.mirror(REGION)


async def test_a_database_that_is_behind_the_bucket_is_refused(house: House) -> None:
    """A bucket that knows a later segment than the database ever made shows a rollback."""
    await house.put()
    await house.keyring.mirror(REGION)
    async with house.pool.acquire() as conn:
        await conn.execute("update key_mirror set intended = 0")
        with pytest.raises(RolledBackError):
            await house.keyring.start_region(REGION)
        await conn.execute("truncate key_tree, key_mirror cascade")
    with pytest.raises(RolledBackError):
        await house.keyring.start_region(REGION)


async def test_a_segment_that_was_changed_is_refused(house: House) -> None:
    """Who owns the bucket can neither change nor make a segment."""
    await house.put(2)
    await house.keyring.mirror(REGION)
    name = (await house.segments())[-1]
    path = house.place / "objects" / name
    good = path.read_bytes()
    mirror = Mirror(house.bucket, REGION)
    for place in (8, 200, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(IntegrityError):
            async for _ in mirror.read(name, digest=hashlib.sha256(good).digest()):
                pass
    path.write_bytes(good[:-1])
    with pytest.raises(IntegrityError):
        async for _ in mirror.read(name):
            pass


async def test_many_dirty_scopes_are_rekeyed_in_steps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal of more scopes than one step takes re-keys them all and leaves nothing dirty."""
    monkeypatch.setattr(seal_module, "SCOPES_IN_ONE_STEP", 10)
    keys = await house.put(75)
    extra = [(await house.put(1))[0] for _ in range(5)]
    await house.shred(*keys[::2])
    result = await house.keyring.seal(REGION)
    assert result is not None
    assert result.scopes == len(keys[::2])
    assert not await house.keyring.needs_seal(REGION)
    walk = await house.keyring.verify(REGION)
    assert (walk.keys, walk.findings) == (len(keys[1::2]) + len(extra), ())


async def test_a_tree_that_empties_shrinks_by_whole_levels(house: House) -> None:
    """When the documents are gone the tree is as flat as it began."""
    keys = await house.put(130)
    async with house.pool.acquire() as conn:
        assert (await house.keyring.status(conn, REGION)).depth == 2
        await house.shred(*keys[:125])
        for _ in range(2):
            await house.keyring.seal(REGION, force=True)
        assert (await house.keyring.status(conn, REGION)).depth == 1
    walk = await house.keyring.verify(REGION)
    assert (walk.nodes, walk.keys, walk.findings) == (1, 5, ())
    await house.put(80)
    assert (await house.keyring.verify(REGION)).findings == ()


async def test_a_dump_in_another_server_is_mirrored_whole_once(house: House) -> None:
    """Where transactions are numbered anew, a base is written, and small segments after it."""
    keys = await house.put(40)
    await house.keyring.mirror(REGION)
    async with house.pool.acquire() as conn:
        for table in ("data_key", "key_generation", "key_changed"):
            await conn.execute(f"update {table} set changed = '99999999'")
        await conn.execute("update key_mirror set seen = '99999999'")
    await house.put()
    assert await house.keyring.mirror(REGION)
    (base,) = await house.segments()
    await house.shred(keys[0])
    await house.keyring.seal(REGION)
    newest = (await house.segments())[-1]
    sizes = [(house.place / "objects" / name).stat().st_size for name in (base, newest)]
    assert newest != base
    assert sizes[1] < sizes[0] / 2
    await house.check()
