"""A bucket that lies, also only now and then: what was authenticated is used, and nothing else."""

import json
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from keys import mirror as mirror_module
from keys import nodes, wrap
from keys.errors import IntegrityError, RestoreRefusedError
from keys.keyring import Merged
from keys.segment import Gone, Writer, encode_row, mac_key
from tests.key_house import REGION, FaultyBucket, House, build

Lie = Callable[[str, int, bytes], bytes]


class LyingBucket(FaultyBucket):
    """A bucket that answers as a lie says, which knows the name and how often it was fetched."""

    lie: Lie | None = None
    fetched: Counter[str]

    @asynccontextmanager
    async def get(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give what is there, or something else."""
        async with super().get(name, offset=offset, length=length) as chunks:
            whole = b"".join([chunk async for chunk in chunks])
        self.fetched[name] += 1
        if self.lie is not None:
            whole = self.lie(name, self.fetched[name], whole)

        async def given() -> AsyncIterator[bytes]:
            yield whole

        yield given()


@pytest.fixture
async def house(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    """Plant a tree of three documents, mirrored in a chain of segments."""
    monkeypatch.setattr("tests.key_house.FaultyBucket", LyingBucket)
    async with build(database, tmp_path) as made:
        lying(made).fetched = Counter()
        await made.keyring.start_region(REGION)
        for _ in range(3):
            await made.put()
            await made.keyring.mirror(REGION)
        lying(made).fetched.clear()
        yield made


def lying(house: House) -> LyingBucket:
    """Return the house's bucket as what it is."""
    assert isinstance(house.bucket, LyingBucket)
    return house.bucket


async def restored(house: House) -> Merged:
    """Restore the region, and leave the database as it was."""
    async with house.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        try:
            done = await house.keyring.restore(conn, REGION)
            kept = {row["id"] for row in await conn.fetch("select id from data_key")}
            assert kept == set(house.living), "a living key was dropped"
            return done
        finally:
            await transaction.rollback()


def with_row(segment: bytes, row: bytes) -> bytes:
    """Return a segment with one row more, and a tag of zeros."""
    return segment[:-37] + row + struct.pack(">cI", b"E", 32) + bytes(32)


def with_header(segment: bytes, **changes: object) -> bytes:
    """Return a segment whose header says something else."""
    (length,) = struct.unpack_from(">I", segment, 1)
    header = {**json.loads(segment[5 : 5 + length]), **changes}
    data = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return struct.pack(">cI", b"H", len(data)) + data + segment[5 + length :]


@pytest.mark.parametrize("lies_from", [1, 2, 3])
@pytest.mark.parametrize("which", [-1, -2, 0], ids=["newest", "middle", "base"])
async def test_a_row_that_nobody_authenticated_shreds_nothing(
    house: House, which: int, lies_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever answer about whichever segment is forged, the living live; each is asked once."""
    # Each row is copied as it comes, as in a segment that is larger than a batch.
    monkeypatch.setattr("keys.restore.BATCH", 1)
    victim, names = house.living[0], await house.segments()
    forged = encode_row(Gone(victim, 1))

    def lie(name: str, time: int, whole: bytes) -> bytes:
        return with_row(whole, forged) if name == names[which] and time >= lies_from else whole

    lying(house).lie = lie
    if which == -1 or lies_from > 1:
        done = await restored(house)
        assert bool(done.passed_over) == (lies_from == 1)
    else:
        with pytest.raises(IntegrityError, match=names[which]):
            await restored(house)
    assert set(lying(house).fetched.values()) == {1}


async def test_a_forged_segment_is_passed_over_and_named(house: House) -> None:
    """Objects that claim to be later segments neither stop the vault nor count."""
    names = await house.segments()
    place = house.place / "objects"
    newest = (place / names[-1]).read_bytes()
    junk = {
        "keys/00000000009999999999-0badf00d": with_row(
            newest, encode_row(Gone(house.living[0], 1))
        ),
        "keys/00000000009999999998-0badf00d": newest,
        "keys/00000000009999999997-0badf00d": with_header(newest, number=9999999997),
        "keys/00000000009999999996-0badf00d": b"",
        "keys/00000000009999999995-0badf00d": b"H\xff\xff\xff\xff" + bytes(100),
        "keys/zzz": b"",
        "keys/x/00000000009999999999-0badf00d": b"",
    }
    for name, data in junk.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    segments = {name for name in junk if mirror_module._NAME.fullmatch(name)}
    await house.keyring.start_region(REGION)
    await house.shred(house.living[0])
    assert await house.keyring.seal(REGION) is not None
    assert set(house.keyring.passed_over.names(REGION)) == segments
    assert house.keyring.passed_over.count(REGION) == len(segments)
    assert set((await restored(house)).passed_over) == segments
    for name in junk:
        (place / name).unlink()
    await house.put()
    await house.keyring.mirror(REGION)
    assert house.keyring.passed_over.count(REGION) == 0


async def signed(house: House, segment: bytes, **changes: object) -> bytes:
    """Return a segment with another header, as somebody makes it who has the root's key."""
    async with house.pool.acquire() as conn:
        head = await nodes.tree(conn, REGION)
    assert head is not None
    root_key = await house.custodian.unwrap(
        REGION, head.generation, head.root_wrap, wrap.root_context(REGION, head.generation)
    )
    writer = Writer(mac_key(root_key))
    return writer.add(with_header(segment, **changes)[:-37]) + writer.finish()


@pytest.mark.parametrize("previous", ["itself", "a later one", "one that is missing"])
async def test_a_chain_that_leads_nowhere_ends(house: House, previous: str) -> None:
    """A chain goes down to lower numbers and ends, even where its maker had the key."""
    names, place = await house.segments(), house.place / "objects"
    newest, later = (place / names[-1]).read_bytes(), "keys/00000000009999999999-0badf00d"
    (place / later).write_bytes(with_header(newest, number=9999999999))
    target = {"itself": names[-1], "a later one": later, "one that is missing": names[0]}[previous]
    digest = sha256((place / target).read_bytes()).hexdigest()
    made = await signed(house, newest, previous=target, previous_digest=digest)
    (place / names[-1]).write_bytes(made)
    if previous == "one that is missing":
        (place / target).unlink()
    with pytest.raises(IntegrityError, match=target):
        await restored(house)
    assert max(lying(house).fetched.values()) <= 2


async def test_a_chain_longer_than_any_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain at the bound is followed to its base, and no further beyond it."""
    monkeypatch.setattr("keys.restore.CHAIN_MAX", len(await house.segments()))
    await restored(house)
    monkeypatch.setattr("keys.restore.CHAIN_MAX", len(await house.segments()) - 1)
    with pytest.raises(IntegrityError, match="no base"):
        await restored(house)


async def test_a_bucket_of_nothing_but_junk_is_named(house: House) -> None:
    """Where nothing verifies the restore says so, and what it looked at."""

    def lie(name: str, time: int, whole: bytes) -> bytes:
        del name, time
        return whole[:-1] + bytes([whole[-1] ^ 1])

    lying(house).lie = lie
    with pytest.raises(RestoreRefusedError, match="did not verify"):
        await restored(house)


async def test_every_byte_that_is_spoiled_is_found(house: House) -> None:
    """Whichever byte of the newest segment is another one, the segment is not used."""
    names = await house.segments()
    size = (house.place / "objects" / names[-1]).stat().st_size
    place = 0

    def lie(name: str, time: int, whole: bytes) -> bytes:
        del time
        if name != names[-1]:
            return whole
        return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]

    lying(house).lie = lie
    for place in [*range(0, size, 101), size - 1]:  # noqa: B007 - the lie reads it
        assert (await restored(house)).passed_over == (names[-1],)
