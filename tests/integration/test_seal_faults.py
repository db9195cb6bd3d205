"""A seal that fails at any call, before or after it took effect, loses and reveals nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keys import seal as seal_module
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
