"""Orders are found by their numbers and references, through an index whose key is replaced."""

from uuid import UUID

import pytest

from tests.fixtures_server import NUMBERS, PORTING, Api
from tests.integration.test_tokens import token
from tests.retention_house import clocked, new_order
from vault.actions.keys import seal, worker
from vault.actions.order_details import index_key, renew_index
from vault.actions.order_list import Sought, list_orders
from vault.actions.orders import create_order
from vault.commands.orders import order_list
from vault.commands.parser import make_parser
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.orders import Mark, Order, macs
from vault.migrate import migrations_directory
from vault.sql import learned as learned_sql
from vault.sql import order_details as details_sql
from vault.sql import restore as restore_sql
from vault.sql.connection import transaction
from vault.trials.attackers import Attacker

SEARCH = "/v1/orders/search"
WANTED = {"region": "uk", "number": NUMBERS[0]}


async def found(vault: Vault, number: str = NUMBERS[0]) -> list[Order]:
    """Find orders as the desk does."""
    sought = Sought(region="uk", number=number)
    return [item.order for item in await list_orders(vault, PORTING, sought, None, 50)]


async def renewed(vault: Vault) -> None:
    """Let the worker replace the index's key, if it is time."""
    while await renew_index(vault, "uk"):
        pass


async def test_an_order_is_found_by_each_of_its_numbers(vault: Vault, api: Api) -> None:
    """Newest first, a page at a time; by a number that nobody moves there is nothing."""
    orders = [await api.order() for _ in range(3)]
    _, page, _ = await api.call("POST", f"{SEARCH}?limit=2", json=WANTED)
    assert [item["id"] for item in page["data"]] == orders[:0:-1]
    cursor = page["next_cursor"]
    _, page, _ = await api.call("POST", f"{SEARCH}?limit=2&cursor={cursor}", json=WANTED)
    assert ([item["id"] for item in page["data"]], page["next_cursor"]) == (orders[:1], None)
    _, page, _ = await api.call("POST", SEARCH, json={**WANTED, "number": "+442079460124"})
    assert page["data"] == []
    rows = await vault.pool.fetch("select mac from number_index")
    assert all(b"7946" not in row["mac"] for row in rows)


async def test_a_list_shows_what_the_desk_knows_an_order_by(
    vault: Vault, api: Api, passport: bytes
) -> None:
    """Masked number, reference, documents, deadline; opened on demand, and recorded by order."""
    fields = {"region": "uk", "customer": "acme", "numbers": NUMBERS, "customer_reference": "R-7"}
    _, made, _ = await api.call("POST", "/v1/orders", json=fields)
    await api.put(made["id"], passport)
    await vault.pool.execute("update document set due_at = '2026-12-01'")
    said = "select principal, action from access_record where \"order\" = $1 and phase = 'progress'"
    _, page, _ = await api.call("GET", "/v1/orders")
    (row,) = page["data"]
    assert (row["details"], row["numbers_masked"], row["document_count"]) == ("unasked", None, 1)
    assert await vault.pool.fetch(said, made["id"]) == []
    # Whoever made it has opened it; another token has not.
    await token(vault, api, "other")
    for _ in range(2):
        _, page, _ = await api.call("GET", "/v1/orders?details=true", role="other")
        (row,) = page["data"]
        assert (row["details"], row["customer_reference"], row["number_count"]) == (
            "kept",
            "R-7",
            1,
        )
        assert row["numbers_masked"] == ["+442079460***"]
        assert row["due_at"] == "2026-12-01T00:00:00Z"
        (record,) = await vault.pool.fetch(said, made["id"])
        assert record["action"] == "order.list"
    await token(vault, api, "away", located="hk")
    _, page, _ = await api.call("GET", "/v1/orders?details=true", role="away")
    (row,) = page["data"]
    assert (row["details"], row["numbers_masked"]) == ("elsewhere", None)
    await vault.pool.execute("update porting_order set details = null, details_gone_at = now()")
    _, page, _ = await api.call("GET", "/v1/orders?details=true", role="other")
    assert page["data"][0]["details"] == "gone"


async def test_a_list_is_narrowed_and_a_mistyped_filter_is_refused(
    vault: Vault, api: Api, passport: bytes
) -> None:
    """By status, customer, deadline, region and number, each alone and together."""
    first, second = [await api.order() for _ in range(2)]
    await api.call("PATCH", f"/v1/orders/{first}", json={"status": "submitted"})
    await api.put(second, passport)
    await vault.pool.execute("update document set due_at = '2026-12-01'")
    for query, expected in (
        ("status=submitted", [first]),
        ("status=ported", []),
        ("customer=acme&region=uk", [second, first]),
        ("customer=other", []),
        ("due_before=2026-12-02", [second]),
        ("due_before=2026-11-30", []),
        ("status=submitted&due_before=2026-12-02", []),
    ):
        status, page, _ = await api.call("GET", f"/v1/orders?{query}")
        assert (status, [item["id"] for item in page["data"]]) == (200, expected), query
    for wrong in ("state=ported", "status=moved", "due_before=soon", "details=1"):
        assert (await api.call("GET", f"/v1/orders?{wrong}"))[0] == 422, wrong
    body = {**WANTED, "status": "submitted"}
    _, page, _ = await api.call("POST", f"{SEARCH}?details=true", json=body)
    assert [(item["id"], item["details"]) for item in page["data"]] == [(first, "kept")]


async def test_the_desks_list_in_the_terminal(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line an order; where there are more it says how to go on, and goes on."""
    orders = [await api.order() for _ in range(3)]
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["porting"])

    async def listed(*options: str) -> tuple[list[str], str]:
        await order_list(make_parser().parse_args(["order", "list", *options]))
        out, says = capsys.readouterr()
        return out.splitlines()[1:], says

    lines, says = await listed("--limit", "2")
    assert [line[:36] for line in lines] == orders[:0:-1]
    assert "+442079460***" in lines[0]
    lines, says = await listed("--cursor", says.split()[-1])
    assert ([line[:36] for line in lines], says) == (orders[:1], "")
    lines, _ = await listed("--brief", "--region", "uk", "--number", NUMBERS[0])
    assert (len(lines), "+44" in lines[0]) == (3, False)


async def test_an_order_is_found_by_its_reference(
    vault: Vault,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To the letter, alone or with a number; as corrected; after an upgrade, once it is indexed."""
    fields = {"region": "uk", "customer": "acme", "numbers": NUMBERS, "customer_reference": "R-7"}
    _, made, _ = await api.call("POST", "/v1/orders", json=fields)
    other = await api.order()
    wanted = {"region": "uk", "customer_reference": "R-7"}

    async def ids(**more: str) -> list[str]:
        _, page, _ = await api.call("POST", SEARCH, json={**wanted, **more})
        return [item["id"] for item in page["data"]]

    assert await ids() == await ids(number=NUMBERS[0], customer="acme") == [made["id"]]
    assert await ids(number="+442079460124") == await ids(customer_reference="r-7") == []
    for wrong in ({"region": "uk"}, {"customer_reference": "R-7"}, {**wanted, "number": "7"}):
        assert (await api.call("POST", SEARCH, json=wrong))[0] == 422, wrong
    status, problem, _ = await api.call("POST", SEARCH, json={**wanted, "customer_reference": ""})
    assert (status, "1 to 128" in problem["detail"]) == (422, True)
    assert (await api.call("GET", "/v1/orders?region=uk&customer_reference=R-7"))[0] == 422
    kept = str(await vault.pool.fetch("select * from number_index"))
    told = str(await vault.pool.fetch("select * from access_record"))
    assert "R-7" not in kept + told
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["porting"])
    for verb in ("list", "find"):
        said = ["order", verb, "--region", "uk", "--reference", "R-7"]
        await order_list(make_parser().parse_args(said))
        assert [line[:36] for line in capsys.readouterr().out.splitlines()[1:]] == [made["id"]]
    await api.call(
        "POST", f"/v1/orders/{made['id']}/actions/correct", json={"customer_reference": "R-8"}
    )
    assert (await ids(), await ids(customer_reference="R-8")) == ([], [made["id"]])
    assert len(await found(vault)) == 2
    # As an upgrade from before references were indexed leaves it.
    await vault.pool.execute("delete from number_index where reference")
    await vault.pool.execute(_REFERENCES_WAIT)
    assert await ids(customer_reference="R-8") == []
    assert await count_numbers(vault, made["id"]) == 1, "a hook finds its one number meanwhile"
    await renewed(vault)
    assert await ids(customer_reference="R-8") == [made["id"]]
    assert [str(item.id) for item in await found(vault)] == [other, made["id"]]
    assert await vault.pool.fetchval("select count(*) from number_index") == 3


#: The statement of the migration itself.
_REFERENCES_WAIT = (
    next(migrations_directory().glob("*_reference_index.sql")).read_text().split(";")[1]
)


async def count_numbers(vault: Vault, order: str) -> int:
    """Return how many numbers the index says that an order moves."""
    async with transaction(vault.pool) as conn:
        return await details_sql.count_numbers(conn, UUID(order))


async def test_only_ones_own_orders_are_found(vault: Vault, api: Api) -> None:
    """Another customer's order is as one that is not there, and so is another region."""
    await token(vault, api, "acme", customers=frozenset({"acme"}))
    await token(vault, api, "other", customers=frozenset({"other"}))
    order = await api.order()
    for role, expected in (("acme", [order]), ("other", []), ("porting", [order])):
        _, page, _ = await api.call("POST", SEARCH, json=WANTED, role=role)
        assert [item["id"] for item in page["data"]] == expected
    assert (await api.call("POST", SEARCH, json=WANTED, role="porting-sg"))[0] == 403


async def test_what_is_no_number_or_region_is_refused(api: Api) -> None:
    """The refusal says what is wrong, and does not repeat the number."""
    wrongs: tuple[dict[str, str | None], ...] = (
        {"number": "02079461599"},
        {"number": ""},
        {"region": None},
    )
    for wrong in wrongs:
        status, problem, _ = await api.call("POST", SEARCH, json={**WANTED, **wrong})
        assert status == 422
        assert "1599" not in problem["detail"]


async def test_the_record_of_a_search_holds_no_number(vault: Vault, api: Api) -> None:
    """It says that orders were listed, by whom and where."""
    await api.call("POST", SEARCH, json=WANTED)
    rows = await vault.pool.fetch("select * from access_record where action = 'order.list'")
    assert len(rows) == 2
    assert "794601" not in str([dict(row) for row in rows])


async def test_the_key_is_replaced_at_its_age_and_orders_are_found_all_the_same(
    config: Config,
) -> None:
    """A moment before nothing happens; then every order moves, and the old key is destroyed."""
    async with clocked(config, number_index_days=30) as (vault, clock):
        order = await new_order(vault)
        old, _ = await index_key(vault, "uk")
        clock.forward(days=30, seconds=-1)
        await renewed(vault)
        assert (await index_key(vault, "uk"))[0] == old
        clock.forward(seconds=1)
        assert await renew_index(vault, "uk")
        assert [item.id for item in await found(vault)] == [order], "half way"
        await renewed(vault)
        assert (await index_key(vault, "uk"))[0] != old
        assert [item.id for item in await found(vault)] == [order]
        left = await vault.pool.fetchval("select count(*) from data_key where id = $1", old)
        assert left == 0
        assert await vault.pool.fetchval("select count(*) from number_index") == 1
        rows = await vault.pool.fetch(
            "select phase, result from access_record where action = 'order.reindex' order by at"
        )
        # One step opened the order's details, another destroyed the key.
        assert [tuple(row) for row in rows] == [("intent", None), ("outcome", "completed")] * 2


async def test_an_old_index_is_sealed_away_with_its_key(config: Config) -> None:
    """With every state of the rows and all that the custodian has, the old key is not to be had."""
    attacker = Attacker("uk")
    async with clocked(config, number_index_days=30) as (vault, clock):
        await new_order(vault)
        _, old = await index_key(vault, "uk")
        await attacker.take_database(config.database)
        clock.forward(days=30)
        await renewed(vault)
        await seal(vault, worker(vault), "uk")
        _, new = await index_key(vault, "uk")
        await attacker.take_database(config.database)
        attacker.take_bucket(config.home / "objects" / "uk")
        attacker.take_custodian(config.home.with_name(f"{config.home.name}-keys"))
        attacker.learn()
        assert new.reveal() in attacker.keys, "the attack works"
        assert old.reveal() not in attacker.keys


async def test_nothing_new_goes_under_a_key_that_was_retired(config: Config) -> None:
    """Whoever read the key before it was replaced is told, and indexes under the new one."""
    async with clocked(config, number_index_days=30) as (vault, clock):
        order = await new_order(vault)
        old, key = await index_key(vault, "uk")
        clock.forward(days=30)
        await renew_index(vault, "uk")
        async with transaction(vault.pool) as conn:
            marks = [Mark(mac) for mac in macs(key, NUMBERS)]
            assert not await details_sql.insert_numbers(conn, "uk", old, order, marks)
        await new_order(vault)
        assert len(await found(vault)) == 2


async def test_orders_of_before_the_index_are_indexed_by_the_worker(vault: Vault) -> None:
    """A row without a key says which: it is replaced by the numbers' rows."""
    numbers = [NUMBERS[0], "+442079460124"]
    view = await create_order(vault, PORTING, region="uk", customer="acme", numbers=numbers)
    await vault.pool.execute("delete from number_index")
    await vault.pool.execute(
        """insert into number_index (region, "order") values ('uk', $1)""", view.order.id
    )
    assert await found(vault) == []
    await renewed(vault)
    for number in numbers:
        assert [item.id for item in await found(vault, number)] == [view.order.id]


async def test_a_restore_knows_keys_that_are_no_documents(vault: Vault) -> None:
    """Keys of orders and of the index are not unknown documents; an index key of later goes."""
    await new_order(vault)
    key, _ = await index_key(vault, "uk")
    async with transaction(vault.pool) as conn:
        await restore_sql.keep_objects(conn, [], first=True)
        await learned_sql.begin(conn)
        assert await restore_sql.lines(conn, "uk", "documents/") == []
        assert await restore_sql.unknown_index_keys(conn, "uk") == []
        await conn.execute("delete from number_index")
        await conn.execute("delete from number_index_key")
        assert await restore_sql.unknown_index_keys(conn, "uk") == [key]
