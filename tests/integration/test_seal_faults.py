"""A seal that fails at any call, before or after it took effect, loses and reveals nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keys import seal as seal_module
from keys.damage import DamagedError
from keys.errors import KeysError
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
