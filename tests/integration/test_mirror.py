"""The key tree's copy in the bucket: whole, opened before it counts, and proof of a rollback."""

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keys import data_keys, mirror_rows
from keys import seal as seal_module
from keys.errors import IntegrityError, RolledBackError
from keys.ground.postgres import Connection
from keys.mirror import Mirror
from keys.mirror_rows import Known, Progress
from keys.nodes import Tree
from keys.segment import Row, encode_row
from keys.tree import Scope
from tests.key_house import REGION, FaultyBucket, House, build


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
    mirror = Mirror(house.bucket, house.custodian, REGION)
    for place in (8, 200, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(IntegrityError):
            async for _ in mirror.read(name, digest=hashlib.sha256(good).digest()):
                pass
    path.write_bytes(good[:-1])
    with pytest.raises(IntegrityError):
        async for _ in mirror.read(name):
            pass


@pytest.mark.parametrize("seed", range(8))
async def test_a_segment_is_the_same_from_memory_and_from_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What a seal remembers of its switch never hides what others wrote before or after it."""
    chance, compared = random.Random(seed), 0
    changes, intend = mirror_rows.changes, mirror_rows.intend

    async def meanwhile(conn: Connection, region: str) -> Progress:
        house.keyring.forget()
        await upload_and_shred(house, chance)
        return await intend(conn, region)

    async def both(
        conn: Connection, region: str, head: Tree, since: str, known: Known | None = None
    ) -> AsyncIterator[Row]:
        nonlocal compared
        if known is None:
            # The look before the seal, which remembers nothing yet.
            async for row in changes(conn, region, head, since):
                yield row
            return
        rows = [row async for row in changes(conn, region, head, since, known)]
        again = [row async for row in changes(conn, region, head, since)]
        assert sorted(map(encode_row, rows)) == sorted(map(encode_row, again))
        compared += 1
        for row in rows:
            yield row

    await house.put(chance.choice([2, 59, 130]))
    await house.keyring.mirror(REGION)
    monkeypatch.setattr(mirror_rows, "changes", both)
    monkeypatch.setattr(mirror_rows, "intend", meanwhile)
    for _ in range(3):
        await upload_and_shred(house, chance)
        await house.put()
        await house.shred(chance.choice(house.living))
        assert await house.keyring.seal(REGION) is not None
    assert compared == 3
    monkeypatch.undo()
    await house.check()


async def upload_and_shred(house: House, chance: random.Random) -> None:
    """Do some of what goes on beside a seal: new scopes, keys in old ones, keys that go."""
    await house.put(chance.choice([0, 1, 3, 65]))
    for key in chance.sample(house.living, min(3, len(house.living))):
        await house.put(beside=key)
    going = min(chance.randrange(5), len(house.living) - 1)
    await house.shred(*chance.sample(house.living, max(going, 0)))


async def test_a_bucket_that_keeps_something_else_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No generation dies before the bucket gave back each byte of the segment."""
    (key,) = await house.put()
    before = house.root_keys()
    put = FaultyBucket.put

    async def spoil(self: FaultyBucket, name: str, chunks: Any, *, size_bytes: int | None) -> None:
        whole = b"".join([chunk async for chunk in chunks])

        async def other() -> AsyncIterator[bytes]:
            yield whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]

        await put(self, name, other(), size_bytes=size_bytes)

    await house.shred(key)
    monkeypatch.setattr(FaultyBucket, "put", spoil)
    with pytest.raises(IntegrityError):
        await house.keyring.seal(REGION)
    assert before < house.root_keys()
    monkeypatch.undo()
    await house.keyring.seal(REGION)
    assert not before & house.root_keys()


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


async def test_a_row_that_is_not_there_stops_the_seal(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation never dies on the word of a statement that missed a row."""
    keys = await house.put(2)
    roots = house.root_keys()
    take = data_keys.take_dirty_scopes

    async def lose(conn: Connection, region: str, limit: int | None = None) -> list[Scope]:
        scopes = await take(conn, region, limit)
        await conn.execute("set local session_replication_role = replica")
        await conn.execute("delete from key_scope where id = $1", scopes[0].id)
        return scopes

    await house.put(beside=keys[0])
    await house.shred(keys[0])
    monkeypatch.setattr(data_keys, "take_dirty_scopes", lose)
    with pytest.raises(IntegrityError):
        await house.keyring.seal(REGION)
    assert roots <= house.root_keys()
    monkeypatch.undo()
    assert await house.keyring.seal(REGION) is not None
    await house.check()
