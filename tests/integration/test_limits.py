"""A stolen token does not empty the vault: limits over real HTTP, shared by all processes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from tests.fixtures_server import Api, serving
from vault.actions.credentials import authenticate
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.process.meter import SYNC_SECONDS


@pytest.fixture
def config(config: Config) -> Config:
    """Give settings with limits that a test reaches."""
    return replace(config, reads_per_hour_max=5, orders_per_hour_max=3)


@pytest.fixture
async def second(config: Config) -> AsyncIterator[Vault]:
    """Open the vault in what stands for another process."""
    async with open_vault(config, dsn=config.database) as opened:
        yield opened


async def test_reads_end_at_the_limit_and_somebody_is_told(
    api: Api, vault: Vault, passport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The fifth read is answered, the sixth is 429 with a time, recorded, and a signal."""
    _, document = await api.put(await api.order(), passport)
    with caplog.at_level(logging.WARNING, "vault.process.meter"):
        answers = [(await api.get(document["id"]))[0] for _ in range(7)]
    assert answers == [200] * 5 + [429] * 2
    path, why = f"/v1/documents/{document['id']}/content", {"Access-Purpose": "verify-identity"}
    status, problem, response = await api.call("GET", path, headers=why)
    assert (status, "5 reads an hour" in problem["detail"]) == (429, True)
    assert 3000 < int(response.headers["Retry-After"]) <= 3900
    told = [
        record.getMessage() for record in caplog.records if record.name == "vault.process.meter"
    ]
    assert len(told) == 2
    async with api.session.get(api.url + "/metrics") as answer:
        text = await answer.text()
    assert 'portvault_limit_signals{level="near"} 1.0' in text
    assert 'portvault_limit_signals{level="reached"} 1.0' in text
    denied = "select count(*) from access_record where reason = 'limit-reached'"
    assert await vault.pool.fetchval(denied) == 3


async def test_another_principal_is_not_affected(api: Api, vault: Vault, passport: bytes) -> None:
    """One token at its limit is no reason to keep another waiting."""
    order = await api.order()
    _, document = await api.put(order, passport)
    for _ in range(6):
        await api.get(document["id"])
    async with serving(vault) as others:
        others.url = api.url
        assert (await others.get(document["id"]))[0] == 200


async def test_full_numbers_are_counted_as_reads(api: Api) -> None:
    """Those of an order are one read, whoever repeats it comes to the limit, and all is refused."""
    path, why = f"/v1/orders/{await api.order()}/numbers", {"Access-Purpose": "submit-to-carrier"}
    answers = [(await api.call("GET", path, headers=why))[0] for _ in range(6)]
    assert answers == [200] * 5 + [429]


async def test_so_many_orders_and_no_more(api: Api) -> None:
    """The fourth order is not shown, by whatever call; those that were seen still are."""
    orders = [await api.order() for _ in range(4)]
    answers = [(await api.call("GET", f"/v1/orders/{order}"))[0] for order in orders]
    assert answers == [200, 200, 200, 429]
    assert (await api.call("GET", f"/v1/orders/{orders[0]}"))[0] == 200


async def test_a_list_opens_so_many_orders_and_names_the_others(api: Api) -> None:
    """Past the limit an order is in the list without its details; what was opened stays so."""
    orders = [await api.order() for _ in range(4)]
    for _ in range(2):
        _, page, _ = await api.call("GET", "/v1/orders?details=true")
        assert [row["id"] for row in page["data"]] == orders[::-1]
        assert [row["details"] for row in page["data"]] == ["kept", "kept", "kept", "limit"]
    assert (await api.call("GET", f"/v1/orders/{orders[0]}"))[0] == 429


async def test_what_was_refused_uses_up_no_order(api: Api, vault: Vault) -> None:
    """Changes that were refused opened nothing; what was opened beside them stays counted."""
    orders = [await api.order() for _ in range(6)]
    wrong = {"status": "ported", "effective_at": "2020-01-01T00:00:00Z"}
    shown = [(await api.call("GET", f"/v1/orders/{order}"))[0] for order in orders[:2]]
    assert shown == [200, 200]
    # What is exchanged between count and refusal stays counted.
    async with vault.meter._syncing:
        for order in orders:
            # The time is wrong, and past the limit it would be the limit that refuses.
            assert (await api.call("PATCH", f"/v1/orders/{order}", json=wrong))[0] == 422
    await vault.meter.sync()
    assert await vault.pool.fetchval("select count(distinct subject) from usage") == 2
    answers = [(await api.call("GET", f"/v1/orders/{order}"))[0] for order in orders[2:]]
    assert answers == [200, 429, 429, 429]


async def test_what_could_not_be_opened_uses_up_no_order(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """While the custodian is away names of many orders are asked for, and none is counted."""
    made = [(await api.put(await api.order(), passport))[1]["id"] for _ in range(4)]
    await vault.meter.sync()
    await vault.pool.execute("delete from usage")
    await vault.meter.sync()
    keys = vault.config.signing_key_path.parent
    away = keys.rename(keys.with_name("away"))
    vault.keyring.forget()
    async with vault.meter._syncing:
        for document in made:
            assert (await api.call("GET", f"/v1/documents/{document}"))[0] == 503
    away.rename(keys)
    answers = [(await api.call("GET", f"/v1/documents/{document}"))[0] for document in made]
    assert answers == [200] * 3 + [429]


async def test_what_does_not_exist_is_not_told_by_the_limit(api: Api) -> None:
    """At the limit too, an unknown order is not found."""
    for _ in range(4):
        await api.call("GET", f"/v1/orders/{await api.order()}")
    unknown = "00000000-0000-4000-8000-000000000000"
    assert (await api.call("GET", f"/v1/orders/{unknown}"))[0] == 404


async def test_two_processes_share_one_limit(
    api: Api, vault: Vault, second: Vault, passport: bytes
) -> None:
    """What was read at one process counts at the other."""
    _, document = await api.put(await api.order(), passport)
    async with serving(second) as there:
        there.tokens = api.tokens
        for server in (api, there, api, there, api):
            assert (await server.get(document["id"]))[0] == 200
        for process in (vault, second, vault):
            await process.meter.sync()
        assert await vault.pool.fetchval("select sum(reads) from usage") == 5
        for server in (api, there):
            assert (await server.get(document["id"]))[0] == 429


async def test_a_process_that_starts_anew_knows_what_was_read(
    api: Api, vault: Vault, second: Vault, passport: bytes
) -> None:
    """A limit outlives the process that counted."""
    _, document = await api.put(await api.order(), passport)
    for _ in range(5):
        await api.get(document["id"])
    await vault.meter.sync()
    known = await authenticate(second, api.tokens["porting"])
    assert known
    async with serving(second) as there:
        there.tokens = api.tokens
        assert (await there.get(document["id"]))[0] == 429


async def test_many_at_once_find_no_more_than_the_limit(api: Api, passport: bytes) -> None:
    """Forty reads at the same moment are five answers: none is counted after the others looked."""
    _, document = await api.put(await api.order(), passport)
    answers = await asyncio.gather(*(api.get(document["id"]) for _ in range(40)))
    assert sorted(status for status, _ in answers) == [200] * 5 + [429] * 35


async def test_a_change_shows_an_order_and_counts(api: Api) -> None:
    """A step to where an order stands already is a look at it, and the fourth is refused."""
    orders = [await api.order() for _ in range(4)]
    changes = [
        await api.call("PATCH", f"/v1/orders/{order}", json={"status": "draft"}) for order in orders
    ]
    assert [status for status, _, _ in changes] == [200, 200, 200, 429]


async def test_what_could_not_be_recorded_is_not_counted(
    api: Api, vault: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """Reads that are refused because records cannot be written cost the reader nothing."""
    _, document = await api.put(await api.order(), passport)
    await pool.execute("alter table access_record rename to away")
    assert [(await api.get(document["id"]))[0] for _ in range(6)] == [503] * 6
    await pool.execute("alter table away rename to access_record")
    assert [(await api.get(document["id"]))[0] for _ in range(6)] == [200] * 5 + [429]


async def test_every_name_that_is_opened_counts(api: Api, passport: bytes) -> None:
    """File names, details and found numbers of a fourth order are refused, by whatever call."""
    numbers = [f"+44207946012{last}" for last in range(4)]
    orders, documents = [], []
    for number in numbers:
        fields = {"region": "uk", "customer": "acme", "numbers": [number]}
        key = {"Idempotency-Key": number}
        _, order, _ = await api.call("POST", "/v1/orders", json=fields, headers=key)
        orders.append(order["id"])
        named = {"Content-Disposition": 'attachment; filename="scan.jpg"'}
        documents.append((await api.put(order["id"], passport, **named))[1]["id"])
    shown = [await api.call("GET", f"/v1/documents/{identity}") for identity in documents]
    assert [status for status, _, _ in shown] == [200, 200, 200, 429]
    assert [body.get("filename") for _, body, _ in shown[:3]] == ["scan.jpg"] * 3
    assert int(shown[3][2].headers["Retry-After"]) > 0
    again = await api.call("GET", f"/v1/documents/{documents[0]}")
    assert again[0] == 200
    fields = {"region": "uk", "customer": "acme", "numbers": [numbers[3]]}
    key = {"Idempotency-Key": numbers[3]}
    assert (await api.call("POST", "/v1/orders", json=fields, headers=key))[0] == 429
    search = {"region": "uk", "number": numbers[3]}
    assert (await api.call("POST", "/v1/orders/search", json=search))[0] == 429
    change = {"status": "submitted"}
    assert (await api.call("PATCH", f"/v1/orders/{orders[3]}", json=change))[0] == 429
    # Who is shown no name opens none.
    looked = [await api.call("GET", f"/v1/documents/{one}", role="compliance") for one in documents]
    assert [status for status, _, _ in looked] == [200] * 4


def test_a_data_key_is_unwrapped_in_one_place() -> None:
    """
    Whoever opens what is sealed goes by `Access.unwrap`, which counts.

    The others only compute a MAC, of a number for the index or of what tells requests apart, or
    look whether what rests, or what a backup has in its place, is sound, and keep nothing of it.
    These look for no principal, so that there is nobody whose limit they could take from.
    """
    root = Path(__file__).parents[2] / "vault"
    found = {
        str(path.relative_to(root)): path.read_text().count("open_key(")
        for path in root.rglob("*.py")
        if "open_key(" in path.read_text()
    }
    macs = ("fax_intake", "order_details", "once", "orders")
    looks = {"actions/look.py": 3, "actions/repair.py": 2}
    assert found == {f"actions/{name}.py": 1 for name in ("access", *macs)} | looks


async def test_a_refusal_takes_nothing_of_a_limit(api: Api, passport: bytes) -> None:
    """Reads of what was shredded leave all five for what lives."""
    order = await api.order()
    _, gone = await api.put(order, passport)
    _, document = await api.put(order, passport)
    await api.call(
        "POST", f"/v1/documents/{gone['id']}/actions/shred", json={"reason": "withdrawn"}
    )
    assert [(await api.get(gone["id"]))[0] for _ in range(6)] == [410] * 6
    assert [(await api.get(document["id"]))[0] for _ in range(6)] == [200] * 5 + [429]


async def test_a_fault_of_the_database_does_not_end_the_counting(
    api: Api, vault: Vault, config: Config, passport: bytes
) -> None:
    """Counts that were refused by the database, in whatever way, are there when it takes them."""
    _, document = await api.put(await api.order(), passport)
    owner = await asyncpg.connect(config.database)
    await owner.execute(
        """
        create function fail() returns trigger language plpgsql as
            $$ begin raise exception 'deadlock' using errcode = 'deadlock_detected'; end $$;
        create trigger fail before insert on usage for each row execute function fail();
        """
    )
    assert (await api.get(document["id"]))[0] == 200
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await vault.meter.sync()
    # As long as it takes to have met the fault in its own turn.
    await asyncio.sleep(2 * SYNC_SECONDS)
    await owner.execute("drop trigger fail on usage; drop function fail")
    async with asyncio.timeout(20):
        while not await owner.fetchval("select sum(reads) from usage"):
            await asyncio.sleep(0.05)
    await owner.close()
