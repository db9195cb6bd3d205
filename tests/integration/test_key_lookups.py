"""When kept keys run out under load, the custodian is asked once, and each still gets its key."""

import asyncio
from pathlib import Path

import pytest

from keys.errors import KeysError
from keys.tree import WrappedKey
from tests.key_house import REGION, House, build


async def wrapped(house: House) -> list[WrappedKey]:
    """Return the rows of all living keys."""
    rows = await house.pool.fetch("select id, region, scope, scope_epoch, wrap from data_key")
    return [WrappedKey(**dict(row)) for row in rows]


async def test_many_who_need_keys_at_once_ask_the_custodian_once(
    database: str, tmp_path: Path
) -> None:
    """Keys of many scopes have one root; what is kept is asked for again after a seal alone."""
    async with build(database, tmp_path) as house:
        await house.keyring.start_region(REGION)
        await house.put(8)
        rows = await wrapped(house)
        for _ in range(2):
            house.keyring.forget()
            house.faults.arm(None)
            opened = await asyncio.gather(*(house.keyring.open_key(row) for row in rows * 4))
            assert house.faults.names.count("custodian.unwrap") == 1
            assert [key.reveal() for key in opened] == [house.data_keys[row.id] for row in rows] * 4


async def test_a_failure_is_told_to_all_and_asked_again_by_the_next(
    database: str, tmp_path: Path
) -> None:
    """One answer of the custodian that is lost fails those who waited for it, and nobody later."""
    async with build(database, tmp_path) as house:
        await house.keyring.start_region(REGION)
        await house.put(8)
        rows = await wrapped(house)
        house.keyring.forget()
        house.faults.arm_new(frozenset())
        found = await asyncio.gather(
            *(house.keyring.open_key(row) for row in rows), return_exceptions=True
        )
        assert house.faults.broken is not None
        assert any(isinstance(error, OSError | KeysError) for error in found)
        house.faults.arm(None)
        opened = await asyncio.gather(*(house.keyring.open_key(row) for row in rows))
        assert [key.reveal() for key in opened] == [house.data_keys[row.id] for row in rows]


async def test_who_stops_waiting_takes_the_key_from_nobody(database: str, tmp_path: Path) -> None:
    """Also where it was the first, whose question it was."""
    async with build(database, tmp_path) as house:
        await house.keyring.start_region(REGION)
        await house.put(1)
        (row,) = await wrapped(house)
        house.keyring.forget()
        first, second = (asyncio.create_task(house.keyring.open_key(row)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).reveal() == house.data_keys[row.id]
        with pytest.raises(asyncio.CancelledError):
            await first
