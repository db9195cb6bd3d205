"""Directory stores on bad days: no room, no directory, writers that were killed."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vault.adapters.directory import DirectoryRoot, DirectoryStore, sweep
from vault.adapters.objects import open_store
from vault.errors import ConfigurationError, ObjectMissingError, ObjectStoreUnavailableError

MIB = 1024 * 1024

KILLED_WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from vault.adapters.directory import DirectoryStore

async def chunks():
    yield bytes(1024 * 1024)
    print("written", flush=True)
    await asyncio.Event().wait()

asyncio.run(DirectoryStore(Path(sys.argv[1])).put("documents/a", chunks(), size_bytes=None))
"""


async def blocks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(64 * 1024)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "objects"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[DirectoryStore]:
    made = DirectoryStore(root)
    yield made
    await made.close()


async def test_a_full_disk(small_disk: Path) -> None:
    """Without room a put is refused and leaves nothing; what fits is still taken."""
    store = DirectoryStore(small_disk / "objects")
    with pytest.raises(ObjectStoreUnavailableError, match="room"):
        await store.put("documents/a", blocks(128), size_bytes=None)
    assert files(small_disk) == []
    await store.put("documents/a", blocks(32), size_bytes=2 * MIB)
    assert [item.size_bytes async for item in store.list()] == [2 * MIB]
    await store.close()


async def test_a_root_that_goes_and_comes_back(store: DirectoryStore, root: Path) -> None:
    """Whether nothing or a file is in its place, every call says so, and it works again later."""
    await store.put("documents/a", blocks(1), size_bytes=None)
    for in_the_way in (False, True):
        away = root.rename(root.with_name("away"))
        if in_the_way:
            root.write_text("in the way")
        with pytest.raises(ObjectStoreUnavailableError):
            await store.put("documents/b", blocks(1), size_bytes=None)
        with pytest.raises(ObjectStoreUnavailableError):
            async with store.get("documents/a"):
                pytest.fail("there is nothing to read")
        with pytest.raises(ObjectStoreUnavailableError):
            await store.purge("documents/a")
        with pytest.raises(ObjectStoreUnavailableError):
            [item async for item in store.list()]
        with pytest.raises(ObjectStoreUnavailableError):
            await store.check()
        assert root.exists() == in_the_way, "the root is never made anew"
        root.unlink(missing_ok=True)
        away.rename(root)
        assert [item.name async for item in store.list()] == ["documents/a"]
    assert await store.purge("documents/a") == 1


async def test_a_root_that_goes_in_the_middle(store: DirectoryStore, root: Path) -> None:
    """A put whose root is renamed away fails, and its partial file is gone, wherever it lies."""

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        assert len(files(root)) == 1
        root.rename(root.with_name("away"))
        root.write_text("in the way")
        yield bytes(MIB)

    with pytest.raises(ObjectStoreUnavailableError):
        await store.put("documents/a", chunks(), size_bytes=None)
    assert files(root.with_name("away")) == []


async def test_what_a_killed_writer_left_is_swept(root: Path) -> None:
    """Partial files of the dead go at the next start, purge and check; those of the living stay."""
    await DirectoryStore(root).close()
    for way in ("start", "purge", "check"):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_WRITER, str(root), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        assert await asyncio.wait_for(writer.stdout.readline(), 30) == b"written\n"
        store = DirectoryStore(root)
        await store.purge("documents/a")
        await store.check()
        assert len(files(root)) == 1, "it is still being written"
        assert [item async for item in store.list()] == []
        writer.kill()
        await writer.wait()
        if way == "start":
            await DirectoryStore(root).close()
        elif way == "purge":
            assert await store.purge("documents/a") == 0
        else:
            await store.check()
        assert files(root) == []
        await store.close()


async def test_no_writer_loses_its_file_to_a_sweeper(store: DirectoryStore, root: Path) -> None:
    """However often others sweep while it writes, every put is kept."""
    done, held = threading.Event(), DirectoryRoot(root, make=True)

    def keep_sweeping() -> None:
        while not done.is_set():
            sweep(held)

    with ThreadPoolExecutor(3) as sweepers:
        for _ in range(3):
            sweepers.submit(keep_sweeping)
        try:
            for first in range(0, 800, 8):
                names = [f"documents/{first + more}" for more in range(8)]
                await asyncio.gather(
                    *(store.put(name, blocks(1), size_bytes=None) for name in names)
                )
        finally:
            done.set()
    assert len([item async for item in store.list()]) == 800


async def test_only_the_owner_may_read(store: DirectoryStore, root: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask allows."""
    before = os.umask(0)
    try:
        await store.put("documents/deep/a", blocks(1), size_bytes=None)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()} == {
        0o700
    }
    assert [path.stat().st_mode & 0o777 for path in files(root)] == [0o600]


async def test_a_reader_keeps_what_it_opened(store: DirectoryStore) -> None:
    """An object purged while it is read is read to its end, and is missing for the next."""
    await store.put("documents/a", blocks(32), size_bytes=2 * MIB)
    async with store.get("documents/a") as chunks:
        await anext(chunks)
        assert await store.purge("documents/a") == 1
        rest = sum([len(chunk) async for chunk in chunks])
    assert rest > MIB
    with pytest.raises(ObjectMissingError):
        async with store.get("documents/a"):
            pytest.fail("there is nothing to read")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "dir:",
        "/srv",
        "file:/srv",
        "s3://h/bucket",
        "s3+https://h",
        "s3+https://h/B/c",
        "s3+https://h:x/bucket",
        "s3+https://key:word@h/bucket",
        "ftp://key:word@h/bucket",
    ],
)
def test_a_wrong_address_is_refused(uri: str) -> None:
    """An address of no known kind stops the start, and no password in it is repeated."""
    with pytest.raises(ConfigurationError) as refused:
        open_store(uri, access_key="k", secret_key="s", region="r", timeout_seconds=1)
    assert "word" not in str(refused.value)
    assert "dir:" in str(refused.value) or "objects" in str(refused.value)


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file where the directory should be stops the start."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="PORTVAULT_OBJECTS"):
            DirectoryStore(place)


async def test_directories_above_the_store_are_private_too(tmp_path: Path) -> None:
    """Whatever had to be made above the store's root lets nobody else in."""
    store = DirectoryStore(tmp_path / "home" / "objects" / "uk")
    for made in ("home", "home/objects", "home/objects/uk"):
        assert (tmp_path / made).stat().st_mode & 0o777 == 0o700
    await store.close()
