"""When kept keys run out under load, the custodian is asked once, and each still gets its key."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from keys.data_keys import COLUMNS, wrapped_key
from keys.tree import WrappedKey
from tests.key_house import REGION, BrokenError, House, build


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[House]:
    """Give a tree with a few keys, each in a scope of its own, of which none is kept."""
    async with build(database, tmp_path) as made:
        await made.keyring.start_region(REGION)
        await made.put(8)
        made.keyring.forget()
        yield made


async def wrapped(house: House) -> list[WrappedKey]:
    """Return the rows of all living keys."""
    rows = await house.pool.fetch(f"select {COLUMNS} from data_key")
    return [wrapped_key(row) for row in rows]


async def test_many_who_need_keys_at_once_ask_the_custodian_once(house: House) -> None:
    """Keys of many scopes have one root, which is asked for again once it is dropped."""
    rows = await wrapped(house)
    for _ in range(2):
        house.keyring.forget()
        house.faults.arm(None)
        opened = await asyncio.gather(*(house.keyring.open_key(row) for row in rows * 4))
        assert house.faults.names.count("custodian.unwrap") == 1
        assert [key.reveal() for key in opened] == [house.data_keys[row.id] for row in rows] * 4


async def test_an_answer_that_is_lost_fails_who_waited_for_it_and_nobody_later(
    house: House,
) -> None:
    """A failure is not kept: the next who asks gets the key."""
    rows = await wrapped(house)
    house.faults.arm(None)
    await asyncio.gather(*(house.keyring.open_key(row) for row in rows))
    statements = set(house.faults.names) - {"custodian.unwrap"}
    house.keyring.forget()
    house.faults.arm_new(statements)
    found = await asyncio.gather(
        *(house.keyring.open_key(row) for row in rows), return_exceptions=True
    )
    assert house.faults.broken == "custodian.unwrap"
    assert any(isinstance(made, BrokenError) for made in found)
    house.faults.arm(None)
    opened = await asyncio.gather(*(house.keyring.open_key(row) for row in rows))
    assert [key.reveal() for key in opened] == [house.data_keys[row.id] for row in rows]


async def test_who_stops_waiting_takes_the_key_from_nobody(house: House) -> None:
    """Also where it was the first, whose question it was."""
    row, *_ = await wrapped(house)
    first, second = (asyncio.create_task(house.keyring.open_key(row)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).reveal() == house.data_keys[row.id]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_scope_that_a_seal_dropped_before_its_first_key_is_made_again(house: House) -> None:
    """Its second key is another one, which is not taken for the first; then it is as others."""
    scope, identity = uuid4(), uuid4()
    async with house.pool.acquire() as conn:
        await house.keyring.create_empty_scope(conn, REGION, scope)
        _, lost = await house.keyring.new_key(REGION, scope, identity)
        assert await house.keyring.needs_seal(REGION)
        await house.keyring.seal(REGION)
        assert await house.keyring.keep_keys(conn, [lost]) == {identity}
        await house.keyring.create_empty_scope(conn, REGION, scope)
        key, kept = await house.keyring.new_key(REGION, scope, identity)
        async with conn.transaction():
            await house.keyring.settle(conn, REGION, scope)
            assert not await house.keyring.keep_keys(conn, [kept])
        assert not await house.keyring.needs_seal(REGION)
    house.keyring.forget()
    assert (await house.keyring.open_key(kept)).reveal() == key.reveal()


async def test_a_key_of_an_earlier_epoch_is_not_kept_and_the_others_are(house: House) -> None:
    """A group of uploads, of which a seal has overtaken one, is kept but for that one."""
    (stays, leaves), fresh, late = await house.put(2), uuid4(), uuid4()
    scope = house.scopes[leaves]
    await house.put(beside=leaves)
    key, wrapped = await house.keyring.new_key(REGION, scope, late)
    await house.shred(leaves)
    await house.keyring.seal(REGION)
    beside = await house.keyring.new_key(REGION, house.scopes[stays], fresh)
    async with house.pool.acquire() as conn, conn.transaction():
        assert await house.keep(conn, [wrapped, beside[1]]) == {late}
        anew = await house.keyring.rewrap(key, wrapped)
        assert anew.scope_epoch > wrapped.scope_epoch
        assert not await house.keep(conn, [anew])
    for identity, made, where in ((fresh, beside[0], stays), (late, key, leaves)):
        house.data_keys[identity], house.scopes[identity] = made.reveal(), house.scopes[where]
    await house.open_all()
