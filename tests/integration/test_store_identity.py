"""A store is known by its identity: what is not the store takes nothing in and loses nothing."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.fixtures_objects import Ground
from vault.actions.bucket import (
    encode_identity,
    require_identity,
    require_own_store,
    stored_identity,
    take_store,
)
from vault.adapters.directory import DirectoryStore
from vault.context import STORE_IDENTITY
from vault.errors import ConfigurationError, ObjectMissingError, ObjectStoreUnavailableError

ID, OTHER = "a" * 32, "b" * 32


async def one_block() -> AsyncIterator[bytes]:
    yield bytes(1000)


async def put(store: DirectoryStore, name: str) -> None:
    await store.put(name, one_block(), size_bytes=1000)


def write_identity(directory: Path, identity: str) -> None:
    (directory / STORE_IDENTITY).write_bytes(encode_identity(identity))


def mount(source: Path, place: Path) -> None:
    subprocess.run(["mount", "--bind", source, place], check=True)


def unmount(place: Path, *options: str) -> None:
    subprocess.run(["umount", *options, place], check=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a mount point that is empty, and is so again afterwards."""
    made = tmp_path / "objects"
    made.mkdir(mode=0o700)
    yield made
    # A bind mount looks like any directory of its file system: only the system knows of it.
    while subprocess.run(["umount", "-l", made], capture_output=True, check=False).returncode == 0:
        pass


async def refuses_everything(store: DirectoryStore) -> None:
    """Assert that each call of the store is refused, and that none says that a thing is missing."""
    for call in (
        lambda: put(store, "documents/new"),
        lambda: store.purge("documents/a"),
        store.check,
        lambda: stored_identity(store),
    ):
        with pytest.raises(ObjectStoreUnavailableError, match="mounted"):
            await call()
    with pytest.raises(ObjectStoreUnavailableError, match="mounted"):
        [item async for item in store.list()]
    with pytest.raises(ObjectStoreUnavailableError, match="mounted"):
        async with store.get("documents/a"):
            pytest.fail("there is nothing to read")


@pytest.mark.parametrize("marked", [True, False], ids=["with identity", "without"])
async def test_a_disk_that_is_unmounted_under_a_running_store(
    tmp_path: Path, place: Path, marked: bool
) -> None:
    """An empty mount point takes nothing in and loses nothing; mounted again, all is there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, place)
    if marked:
        write_identity(disk, ID)
    store = DirectoryStore(place)
    await put(store, "documents/a")
    busy = subprocess.run(["umount", place], capture_output=True, check=False)
    assert busy.returncode != 0, "a store that is held open keeps its disk mounted"
    unmount(place, "-l")
    await refuses_everything(store)
    assert list(place.iterdir()) == []
    mount(disk, place)
    assert await store.purge("documents/a") == 1
    await put(store, "documents/b")
    assert (disk / "documents/b").exists()
    await store.close()


async def test_what_is_mounted_instead_is_taken_up_only_when_it_is_the_same_store(
    tmp_path: Path, place: Path
) -> None:
    """A disk without the identity, or with another, is refused; a copy of the store is not."""
    disk, empty, foreign = tmp_path / "disk", tmp_path / "empty", tmp_path / "foreign"
    for made in (disk, empty, foreign):
        made.mkdir()
    write_identity(disk, ID)
    write_identity(foreign, OTHER)
    mount(disk, place)
    store = DirectoryStore(place)
    await put(store, "documents/a")
    shutil.copytree(disk, tmp_path / "moved")
    unmount(place, "-l")
    for other in (empty, foreign):
        before = list(other.iterdir())
        mount(other, place)
        await refuses_everything(store)
        assert list(other.iterdir()) == before
        unmount(place)
    mount(tmp_path / "moved", place)
    assert [item.name async for item in store.list("documents/")] == ["documents/a"]
    await put(store, "documents/b")
    assert (tmp_path / "moved/documents/b").exists()
    await store.close()


async def test_a_disk_mounted_over_a_store_in_the_middle_of_a_put(
    tmp_path: Path, place: Path
) -> None:
    """A put whose store is covered before its last byte is refused and leaves nothing anywhere."""
    other = tmp_path / "other"
    other.mkdir()
    store = DirectoryStore(place)

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(1024 * 1024)
        mount(other, place)

    with pytest.raises(ObjectStoreUnavailableError, match="mounted"):
        await store.put("documents/a", chunks(), size_bytes=1024 * 1024)
    unmount(place)
    assert [path for path in place.rglob("*") if path.is_file()] == []
    assert list(other.iterdir()) == []
    await store.close()


async def test_a_store_is_given_an_identity_once(ground: Ground, pool: asyncpg.Pool) -> None:
    """The first start marks the store, later ones find it; the database and the store agree."""
    assert await stored_identity(ground.store) is None
    await require_own_store(pool, ground.store, "uk")
    await take_store(pool, ground.store, "uk", ID)
    await take_store(pool, ground.store, "uk", OTHER)
    assert await stored_identity(ground.store) == ID
    await require_own_store(pool, ground.store, "uk")


async def test_another_store_is_refused(ground: Ground, pool: asyncpg.Pool) -> None:
    """An empty store, or one of somebody else's, stops the start and is left as it is."""
    await pool.execute("insert into object_store (region, id) values ('uk', $1)", ID)
    for check in (
        lambda: take_store(pool, ground.store, "uk", OTHER),
        lambda: require_own_store(pool, ground.store, "uk"),
    ):
        with pytest.raises(ConfigurationError, match="mounted") as refused:
            await check()
        assert ID in str(refused.value), "the sentence says how to mark it by hand"
    with pytest.raises(ObjectMissingError):
        async with ground.store.get(STORE_IDENTITY):
            pytest.fail("nothing was written")
    await take_store(pool, ground.store, "sg", OTHER)
    with pytest.raises(ConfigurationError, match="another store"):
        await take_store(pool, ground.store, "uk", ID)


async def test_an_identity_that_was_written_before_a_crash_is_adopted(
    ground: Ground, pool: asyncpg.Pool
) -> None:
    """A start that died between the store and the database goes on with what the store carries."""
    await take_store(pool, ground.store, "uk", ID)
    await pool.execute("delete from object_store")
    await take_store(pool, ground.store, "uk", OTHER)
    assert await pool.fetchval("select id from object_store where region = 'uk'") == ID


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"v": 2, "id": "a"}', b"[" * 100_000, b'{"v": 1, "id": 7}']
)
async def test_a_damaged_identity_is_named(tmp_path: Path, content: bytes) -> None:
    """What is no identity is said to be damaged, whatever it is."""
    store = DirectoryStore(tmp_path / "objects")
    (tmp_path / "objects" / STORE_IDENTITY).write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        await stored_identity(store)
    with pytest.raises(ConfigurationError, match="damaged") as refused:
        await require_identity(store, "uk", ID)
    assert encode_identity(ID).decode().strip() in str(refused.value)
    assert f"in {tmp_path}/objects is" in str(refused.value)
    await store.close()
