"""Every object store keeps the same promises: one set of tests, run on each kind."""

import asyncio
import hashlib
import itertools
import random
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from tests.fixtures_objects import Ground
from vault.context import ObjectStore
from vault.errors import ObjectMissingError

KIB, MIB = 1024, 1024 * 1024
SIZES = [0, 1, 64 * KIB, 64 * KIB + 1, 5 * MIB, 12 * MIB]


async def sliced(content: bytes, size: int = 64 * KIB) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read(store: ObjectStore, name: str, **part: int) -> bytes:
    async with store.get(name, **part) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def put(store: ObjectStore, name: str, content: bytes, *, known: bool = True) -> None:
    await store.put(name, sliced(content), size_bytes=len(content) if known else None)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("size", SIZES)
async def test_round_trip(ground: Ground, size: int, known: bool) -> None:
    """What was put comes back byte for byte, whether its size was announced or not."""
    content = random.Random(size).randbytes(size)
    await put(ground.store, "documents/a", content, known=known)
    assert await read(ground.store, "documents/a") == content
    listed = [item async for item in ground.store.list()]
    assert [(item.name, item.size_bytes) for item in listed] == [("documents/a", size)]
    assert listed[0].modified_at.tzinfo is not None
    assert len(ground.everything()) == 1


@pytest.mark.parametrize(
    "offset, length",
    [(0, 1), (1, 0), (70_000, None), (65_535, 2), (199_999, 50), (200_000, None), (0, 200_000)],
)
async def test_a_range(ground: Ground, offset: int, length: int | None) -> None:
    """Reading from the middle gives that part; past the end there is nothing."""
    content = random.Random(1).randbytes(200_000)
    await put(ground.store, "documents/a", content)
    expected = content[offset:] if length is None else content[offset : offset + length]
    async with ground.store.get("documents/a", offset=offset, length=length) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == expected


async def test_missing(ground: Ground) -> None:
    """An object that is not there is missing on entry; purging it removes nothing."""
    await put(ground.store, "documents/b", b"b")
    for name in ("documents/a", "documents/b/c", "documents", "else"):
        with pytest.raises(ObjectMissingError):
            async with ground.store.get(name):
                pytest.fail("there is nothing to read")
        assert await ground.store.purge(name) == 0
    assert await read(ground.store, "documents/b") == b"b"


async def test_purge_removes_every_version(ground: Ground) -> None:
    """Overwritten objects are gone with all versions; a longer name with the same start stays."""
    await put(ground.store, "documents/ab", b"other")
    for version in (b"one", b"two", b"three"):
        await put(ground.store, "documents/a", version)
    assert await read(ground.store, "documents/a") == b"three"
    assert await ground.store.purge("documents/a") == (3 if ground.versioned else 1)
    assert await ground.store.purge("documents/a") == 0
    with pytest.raises(ObjectMissingError):
        await read(ground.store, "documents/a")
    assert [item.name async for item in ground.store.list()] == ["documents/ab"]
    assert len(ground.everything()) == 1


async def test_list_ascends(ground: Ground) -> None:
    """Names come in the order of their bytes, across directories, by prefix and after a name."""
    names = ["a-b", "a.b", "a/b", "a/c/d", "a/c-d", "a0", "aa/b", "b"]
    for name in reversed(names):
        await put(ground.store, name, b"x")
    assert [item.name async for item in ground.store.list()] == sorted(names)
    for prefix in ("a/", "a", "a/c", "b", "c"):
        found = [item.name async for item in ground.store.list(prefix)]
        assert found == sorted(name for name in names if name.startswith(prefix))
    for after in ("", "a", "a.b", "a/c", "a/c-z", "aa", "b", "c"):
        found = [item.name async for item in ground.store.list("a", after=after)]
        assert found == sorted(name for name in names if name[0] == "a" and name > after)


class BrokenSourceError(Exception):
    """The source of the chunks failed."""


@pytest.mark.parametrize("error", [BrokenSourceError(), ConnectionResetError(), TimeoutError()])
@pytest.mark.parametrize("after", [0, 1, 100, 192])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_chunks_that_fail_leave_nothing(
    ground: Ground, error: Exception, after: int, known: bool
) -> None:
    """The source fails at the start, in the middle or at the very end: its error, and no trace."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(after):
            yield bytes(64 * KIB)
        raise error

    with pytest.raises(type(error)) as raised:
        await ground.store.put("documents/a", chunks(), size_bytes=12 * MIB if known else None)
    assert raised.value is error
    assert [item async for item in ground.store.list()] == []
    assert ground.everything() == []


@pytest.mark.parametrize("sent", [0, 1, 100, 191, 193])
async def test_a_wrong_size_leaves_nothing(ground: Ground, sent: int) -> None:
    """More or fewer bytes than announced are refused, and nothing is stored."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(sent):
            yield bytes(64 * KIB)

    with pytest.raises(ValueError, match="announced"):
        await ground.store.put("documents/a", chunks(), size_bytes=12 * MIB)
    assert ground.everything() == []
    with pytest.raises(ValueError, match="announced"):
        await ground.store.put("documents/a", sliced(b"x"), size_bytes=0)
    assert ground.everything() == []


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("after", [0, 1, 100])
async def test_cancelled_while_the_source_is_waited_for(
    ground: Ground, after: int, known: bool
) -> None:
    """A task cancelled in the middle of an upload leaves nothing, and its source has ended."""
    reached, ended = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            for _ in range(after):
                yield bytes(64 * KIB)
            reached.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    size = 12 * MIB if known else None
    task = asyncio.create_task(ground.store.put("documents/a", chunks(), size_bytes=size))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert ground.everything() == []


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_cancelled_at_any_moment(ground: Ground, known: bool) -> None:
    """Wherever a cancellation hits, a put that was cancelled leaves nothing to see."""
    content = random.Random(2).randbytes(6 * MIB)
    outcomes = set()
    for turns in itertools.chain(range(0, 60, 7), [100, 200, 300, 400, 500, 700, 1000, 1500]):
        task = asyncio.create_task(put(ground.store, "documents/a", content, known=known))
        for _ in range(turns):
            await asyncio.sleep(0 if turns < 100 else 0.0002)
            if task.done():
                break
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            outcomes.add("cancelled")
            assert ground.everything() == []
        else:
            outcomes.add("done")
            assert await ground.store.purge("documents/a") == 1
    assert "cancelled" in outcomes


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", "..", "a/../b", ".partial/x", "A", "a b", "ä", "a\n", "x" * 600],
)
async def test_bad_names_are_refused(ground: Ground, name: str) -> None:
    """Names that could mean something else on some store are refused by all, everywhere."""
    with pytest.raises(ValueError, match="object name"):
        await put(ground.store, name, b"x")
    with pytest.raises(ValueError, match="object name"):
        await read(ground.store, name)
    with pytest.raises(ValueError, match="object name"):
        await ground.store.purge(name)
    assert ground.everything() == []


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_memory_is_bounded(ground: Ground, known: bool) -> None:
    """64 MiB go in and out with a few MiB of memory."""
    count, block = 1024, random.Random(3).randbytes(64 * KIB)
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(count):
            chunk = number.to_bytes(8, "big") + block[8:]
            sent.update(chunk)
            yield chunk

    tracemalloc.start()
    try:
        size = count * 64 * KIB if known else None
        await ground.store.put("documents/a", chunks(), size_bytes=size)
        async with ground.store.get("documents/a") as content:
            async for chunk in content:
                received.update(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received.digest() == sent.digest()
    assert peak < 24 * MIB, f"peak {peak / MIB:.1f} MiB"


async def test_many_at_once(ground: Ground) -> None:
    """Forty uploads and reads at once do not mix."""
    contents = {f"documents/{n}": random.Random(n).randbytes(100_000 + n) for n in range(40)}
    async with asyncio.TaskGroup() as group:
        for name, content in contents.items():
            group.create_task(put(ground.store, name, content))
    found = await asyncio.gather(*[read(ground.store, name) for name in contents])
    assert dict(zip(contents, found, strict=True)) == contents


async def test_check_leaves_nothing(ground: Ground) -> None:
    """A store that works passes its check, which cleans up after itself."""
    await ground.store.check()
    assert ground.everything() == []
