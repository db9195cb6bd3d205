"""A seal that fails at any call, before or after it took effect, loses and reveals nothing."""

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from keys import mirror as mirror_module
from keys import seal as seal_module
from keys.damage import DamagedError
from keys.errors import KeysError
from keys.ground.postgres import Connection
from tests.key_house import REGION, BrokenError, House, Ledger, build


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[House]:
    """Plant a tree with a few keys in it."""
    ledger = Ledger()
    with ledger.listening():
        async with build(database, tmp_path, ledger) as made:
            await made.keyring.start_region(REGION)
            yield made


async def _shred_some(house: House) -> None:
    """Shred a key that has a neighbour, and one that stands alone."""
    first, alone = await house.put(2)
    (second,) = await house.put(beside=first)
    await house.shred(first, alone)
    assert second in house.living


@pytest.mark.parametrize("after", [False, True], ids=["not-applied", "applied"])
async def test_a_seal_that_fails_at_any_call_is_finished_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """Whatever call fails, the living open, the sealed do not, and the next seal ends it."""
    monkeypatch.setattr(seal_module, "SCOPES_IN_ONE_STEP", 1)
    number, names = 0, set[str]()
    while True:
        number += 1
        await _shred_some(house)
        claimed = await house.sealed()
        house.faults.arm(number, after=after)
        try:
            await house.keyring.seal(REGION)
        except (BrokenError, KeysError):
            names.add(house.faults.names[number - 1])
        else:
            if house.faults.calls < number:
                break
        house.faults.arm(None)
        await house.check(claimed=claimed)
        await house.keyring.seal(REGION)
        assert await house.sealed() == set(house.shredded)
        await house.check()
    assert any("update key_tree" in name for name in names)
    assert {"custodian.create", "custodian.wrap", "custodian.destroy", "bucket.put"} <= names


_FLIP = "set_byte({0}, 20, get_byte({0}, 20) # 1)"


@pytest.mark.parametrize(
    "table, column, which",
    [
        ("data_key", "wrap", "id = $1"),
        ("data_key", "wrap", "id = $2"),
        ("key_node", "page", "level = 0"),
        ("key_tree", "root_wrap", "true"),
    ],
    ids=["re-keyed", "mirrored", "node", "root"],
)
async def test_a_seal_that_cannot_succeed_leaves_no_generation(
    house: House, table: str, column: str, which: str
) -> None:
    """What does not open is named, and neither a number nor a root key is made in vain."""
    (first,) = await house.put()
    beside, gone = await house.put(2, beside=first)
    (fresh,) = await house.put()
    await house.shred(gone)
    of = [key for key, name in ((beside, "$1"), (fresh, "$2")) if name in which]
    where = which.replace("$2", "$1")
    flip = f"update {table} set {column} = {_FLIP.format(column)} where {where} returning *"
    (row,) = await house.pool.fetch(flip, *of)
    house.keyring.forget()
    count = "select count(*) from key_generation"
    before = await house.custodian.generations(REGION), await house.pool.fetchval(count)
    name = REGION if table == "key_tree" else f"{row['id']} in {REGION}"
    for force in (False, True, False):
        with pytest.raises(DamagedError, match=f"{table}.{column} of {name} "):
            await house.keyring.seal(REGION, force=force)
    after = await house.custodian.generations(REGION), await house.pool.fetchval(count)
    assert after == before
    await house.pool.fetch(flip, *of)
    assert await house.keyring.seal(REGION) is not None
    await house.check()


async def _none(conn: Connection, keys: Collection[UUID]) -> set[UUID]:
    del conn, keys
    return set()


async def _lose(house: House, key: UUID) -> None:
    await house.pool.execute("delete from data_key where id = $1", key)


async def test_a_seal_right_after_a_row_was_lost_leaves_its_last_copy(house: House) -> None:
    """Re-keyed its copy in the mirror would open no more: it is named, put back, then sealed."""
    (kept,) = await house.put()
    (gone,) = await house.put(beside=kept)
    await house.keyring.mirror(REGION)
    await house.shred(gone)
    await _lose(house, kept)
    count = "select count(*) from key_generation"
    before = await house.custodian.generations(REGION), await house.pool.fetchval(count)
    for force in (False, True):
        with pytest.raises(DamagedError, match=f"{kept} in {REGION} is missing.*portvault repair"):
            await house.keyring.seal(REGION, force=force)
    assert (await house.custodian.generations(REGION), await house.pool.fetchval(count)) == before
    (mend,) = await house.keyring.repair(REGION, _none, dry_run=False)
    assert (mend.damage.id, mend.mended) == (str(kept), True)
    assert await house.keyring.seal(REGION) is not None
    await house.check()


async def test_a_row_lost_in_the_middle_of_a_seal_keeps_the_old_generation(house: House) -> None:
    """Until the mirror has what was re-keyed, what opened before is the last way there is."""
    known = await _calls_beside_the_segment(house)
    (kept,) = await house.put()
    (gone,) = await house.put(beside=kept)
    await house.keyring.mirror(REGION)
    await house.shred(gone)
    house.faults.arm_new(known)
    with pytest.raises((BrokenError, KeysError)):
        await house.keyring.seal(REGION)
    assert house.faults.broken == "bucket.put"
    house.faults.arm(None)
    rows = await house.pool.fetch("delete from data_key where id = $1 returning *", kept)
    living = await house.custodian.generations(REGION)
    assert len(living) == 2
    with pytest.raises(DamagedError, match=f"{kept} in {REGION} is missing"):
        await house.keyring.seal(REGION)
    assert await house.custodian.generations(REGION) == living
    await _keep_again(house, rows)
    await house.keyring.seal(REGION)
    assert gone in await house.sealed()
    await house.check()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
async def test_a_row_that_no_segment_had_comes_back_with_a_backup(
    house: House, beside: bool
) -> None:
    """A seal of other documents goes on without it; what a backup has of it opens, and is kept."""
    (other,) = await house.put()
    await house.keyring.mirror(REGION)
    (kept,) = await house.put(beside=other if beside else None)
    rows = await house.pool.fetch("delete from data_key where id = $1 returning *", kept)
    await house.keyring.seal(REGION, force=True)
    await house.keyring.seal(REGION, force=True)
    await _keep_again(house, rows)
    async with house.pool.acquire() as conn, conn.transaction():
        # As in a backup of before the seals: of an earlier generation than the mirror.
        await conn.execute("update key_tree set generation = 1")
        done = await house.keyring.restore(conn, REGION)
    assert (done.source, done.keys, done.keys_dropped) == ("mirror", 2, 0)
    await house.keyring.seal(REGION)
    await house.check()


async def _keep_again(house: House, rows: Sequence[asyncpg.Record]) -> None:
    names = ("id", "region", "scope", "scope_epoch", "wrap")
    await house.pool.copy_records_to_table(
        "data_key", records=[tuple(row[name] for name in names) for row in rows], columns=names
    )


async def _calls_beside_the_segment(house: House) -> set[str]:
    """Return the kinds of calls of a whole seal but the one that puts a segment."""
    await _shred_some(house)
    house.faults.arm(None)
    await house.keyring.seal(REGION)
    return set(house.faults.names) - {"bucket.put"}


async def test_a_new_base_is_not_written_without_a_row_that_was_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces every copy that there is."""
    (kept,) = await house.put()
    await house.keyring.mirror(REGION)
    await house.put()
    await _lose(house, kept)
    segments = await house.segments()
    monkeypatch.setattr(mirror_module, "SEGMENTS_MAX", 0)
    for step in (house.keyring.mirror(REGION), house.keyring.seal(REGION, force=True)):
        with pytest.raises(DamagedError, match=f"{kept} in {REGION} is missing"):
            await step
    assert await house.segments() == segments
    (mend,) = await house.keyring.repair(REGION, _none, dry_run=False)
    assert mend.mended
    assert await house.keyring.mirror(REGION)
    await house.check()


async def test_what_is_shredded_after_its_row_was_lost_is_sealed_too(house: House) -> None:
    """The mirror has a copy, and its scope's key must go for it, though no row named the scope."""
    (kept,) = await house.put()
    (lost,) = await house.put(beside=kept)
    await house.keyring.mirror(REGION)
    await _lose(house, lost)
    await house.shred(lost)
    await house.keyring.seal(REGION)
    assert await house.sealed() == {lost}
    await house.check()
