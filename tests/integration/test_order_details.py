"""The sealed details of an order go when its documents have gone, as the policy says."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures_server import NUMBERS, PORTING, Api, serving
from tests.integration.test_number_index import found
from tests.retention_house import Clock, clocked, end, hold, new_order, put, release, sweep
from vault.actions.order_details import forget_orders
from vault.actions.orders import change_order, show_order
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.documents import Kind
from vault.domain.orders import Status
from vault.domain.records import parse_receipt
from vault.errors import RecordsUnavailableError
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql import restore as restore_sql
from vault.sql.connection import connection, transaction

House = tuple[Vault, Clock]


@pytest.fixture
async def house(config: Config) -> AsyncIterator[House]:
    """Open a vault with an hour's grace, whose clock the test moves."""
    async with clocked(config, reversal_grace_seconds=3600.0) as opened:
        yield opened


async def forget(vault: Vault) -> None:
    """Let the worker shred what is due, documents first."""
    await sweep(vault)
    while await forget_orders(vault, "uk"):
        pass


async def has_details(vault: Vault, order: UUID) -> bool:
    """Whether the desk sees the order's numbers."""
    return (await show_order(vault, PORTING, order)).details is not None


async def test_details_go_with_the_last_document_after_the_grace(house: House) -> None:
    """A passport goes after the grace, a letter stays its time, and the numbers stay with it."""
    vault, clock = house
    order = await new_order(vault)
    await put(vault, order)
    await put(vault, order, Kind.LOA)
    await end(vault, order)
    clock.forward(hours=2)
    await forget(vault)
    assert await has_details(vault, order)
    clock.forward(days=731)
    await forget(vault)
    assert not await has_details(vault, order)
    assert await found(vault) == []
    async with connection(vault.pool) as conn:
        row = await orders_sql.find(conn, order)
        assert await orders_sql.details_key(conn, order) is None
    assert row is not None
    assert (row.details, row.status, row.details_gone_at is None) == (None, Status.PORTED, False)


async def test_an_order_without_documents_loses_them_at_its_end(house: House) -> None:
    """Not before the grace for a reversal is over, and at once then."""
    vault, clock = house
    order = await new_order(vault)
    await end(vault, order, Status.CANCELLED)
    clock.forward(seconds=3599)
    await forget(vault)
    assert await has_details(vault, order)
    clock.forward(seconds=2)
    await forget(vault)
    assert not await has_details(vault, order)


async def test_an_open_order_keeps_them_and_a_reversal_does_too(house: House) -> None:
    """An order that is reopened within the grace is found as before, however long it stays open."""
    vault, clock = house
    order = await new_order(vault)
    await end(vault, order)
    await change_order(vault, PORTING, order, Status.EXCEPTION)
    clock.forward(days=30)
    await forget(vault)
    assert await has_details(vault, order)
    assert [item.id for item in await found(vault)] == [order]


@pytest.mark.parametrize("by", ["order", "customer"])
async def test_a_hold_keeps_them_until_it_is_released(house: House, by: str) -> None:
    """Whether it is on the order or on its customer."""
    vault, clock = house
    order = await new_order(vault)
    targets = {"orders": (order,)} if by == "order" else {"customers": ("acme",)}
    held = await hold(vault, **targets)
    await end(vault, order)
    clock.forward(days=30)
    await forget(vault)
    assert await has_details(vault, order)
    await release(vault, held)
    await forget(vault)
    assert not await has_details(vault, order)


async def test_full_numbers_are_read_for_a_purpose_while_there_are_any(
    api: Api, pool: asyncpg.Pool
) -> None:
    """They come with a receipt, once the record is there; without a purpose there is none."""
    path = f"/v1/orders/{await api.order()}/numbers"
    why = {"Access-Purpose": "resolve-exception", "Access-Reference": "EX-7"}
    status, body, response = await api.call("GET", path, headers=why)
    assert (status, body["numbers"]) == (200, NUMBERS)
    held = parse_receipt(response.headers["Access-Receipt"])
    record = await pool.fetchrow("select * from access_record where id = $1", held.record)
    assert record is not None
    assert (record["action"], record["purpose"], record["reference"], record["basis"]) == (
        "order.numbers",
        "resolve-exception",
        "EX-7",
        "same-region",
    )
    assert "+442079460123" not in str([dict(r) for r in await pool.fetch("table access_record")])
    for wrong in ({}, {"Access-Purpose": "deliver-fax"}):
        assert (await api.call("GET", path, headers=wrong))[0] in (403, 422)
    await pool.execute("update porting_order set details = null, details_gone_at = now()")
    assert (await api.call("GET", path, headers=why))[0] == 410


async def test_each_end_is_recorded_once_and_before_it_happens(
    house: House, pool: asyncpg.Pool
) -> None:
    """Intent and outcome name the order; where no record can be made, nothing goes."""
    vault, clock = house
    order = await new_order(vault)
    await end(vault, order)
    clock.forward(hours=2)
    await pool.execute("alter table access_record rename to away")
    with pytest.raises(RecordsUnavailableError):
        await forget(vault)
    await pool.execute("alter table away rename to access_record")
    assert await has_details(vault, order)
    await forget(vault)
    await forget(vault)
    rows = await vault.pool.fetch(
        """select phase, "order", reason from access_record where action = 'order.forget'
        order by at"""
    )
    assert [(row["phase"], row["order"]) for row in rows] == [
        ("intent", order),
        ("outcome", order),
    ]


async def test_the_api_says_that_they_are_gone(house: House) -> None:
    """The order is shown with its status and times, and null where its details were."""
    vault, clock = house
    async with serving(vault) as api:
        order = await api.order()
        assert await shown(api, order) == ("kept", ["+442079460***"], None)
        await end(vault, UUID(order))
        clock.forward(hours=2)
        await forget(vault)
        details, numbers, gone_at = await shown(api, order)
        assert (details, numbers, gone_at is None) == ("gone", None, False)
        _, page, _ = await api.call("GET", "/v1/orders")
        assert [item["id"] for item in page["data"]] == [order]


async def shown(api: Api, order: str) -> tuple[str, list[str] | None, str | None]:
    """Return what the API says of an order's details."""
    status, body, _ = await api.call("GET", f"/v1/orders/{order}")
    assert status == 200
    return body["details"], body["numbers_masked"], body["details_gone_at"]


async def test_a_restore_of_a_state_from_before_brings_nothing_back(house: House) -> None:
    """The log takes a key that is there again away, and where there is no key, that is said."""
    vault, clock = house
    order = await new_order(vault)
    sealed = await vault.pool.fetchval("select details from porting_order where id = $1", order)
    key = await vault.pool.fetchrow("select * from data_key where id = $1", order)
    assert key is not None
    await end(vault, order)
    clock.forward(hours=2)
    await forget(vault)
    # As they stand in a backup from before.
    before = "update porting_order set details = $2, details_gone_at = null where id = $1"
    await vault.pool.execute(before, order, sealed)
    async with transaction(vault.pool) as conn:
        assert await restore_sql.shredded_by_log(conn, "uk") == []
        await conn.execute("insert into data_key values (($1::data_key).*)", tuple(key.values()))
        assert await restore_sql.shredded_by_log(conn, "uk") == [order]
        await vault.keyring.destroy_keys(conn, "uk", [order])
        await details_sql.set_gone_without_key(conn, "uk", clock())
    async with connection(vault.pool) as conn:
        row = await orders_sql.find(conn, order)
    assert row is not None
    assert (row.details, row.details_gone_at is None) == (None, False)
