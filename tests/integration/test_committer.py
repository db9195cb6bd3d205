"""Many uploads share a commit, and none of them pays for another."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from tests.access_records import record
from tests.fixtures_server import NUMBERS, PORTING
from tests.fixtures_wire import Wire
from vault.actions.orders import change_order, create_order
from vault.adapters import committer as committer_module
from vault.adapters.committer import GroupCommitter
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.orders import Status
from vault.domain.records import Record
from vault.errors import DatabaseUnavailableError
from vault.sql.connection import Connection
from vault.sql.intake import ANNOUNCE, KEEP, Announced, Announcement, Claim, Keeping, Kept
from vault.sql.shared import Shared


def intent(document: uuid.UUID) -> Record:
    """Return the intent of an upload."""
    return record(document=document, action="document.ingest", decision="allow")


async def open_order(vault: Vault) -> uuid.UUID:
    """Open an order and return its id."""
    view = await create_order(vault, PORTING, region="uk", customer="acme", numbers=NUMBERS)
    return view.order.id


async def announced(vault: Vault, order: uuid.UUID, claim: Claim | None = None) -> Announcement:
    """Announce an upload to the order."""
    document = uuid.uuid4()
    item = Announcement(intent(document), document, order, "passport", claim)
    assert (await vault.committer.submit(ANNOUNCE, item)).accepted
    return item


async def keeping(vault: Vault, item: Announcement) -> Keeping:
    """Return what keeps an announced upload, as if its bytes were stored."""
    _, wrapped = await vault.keyring.new_key("uk", item.order, item.document)

    def outcome() -> Record:
        return record(phase="outcome", intent=item.intent.id, document=item.document, decision=None)

    return Keeping(
        wrapped, "image/jpeg", 7, b"h" * 56, b"m", vault.clock(), item.claim, outcome=outcome
    )


async def several(vault: Vault, count: int) -> list[Keeping]:
    """Announce uploads to as many orders, and return what keeps them."""
    orders = [await open_order(vault) for _ in range(count)]
    return [await keeping(vault, await announced(vault, order)) for order in orders]


async def keep_all(vault: Vault, items: Sequence[Keeping]) -> list[Kept | BaseException]:
    """Keep them at the same time."""
    return await asyncio.gather(
        *(vault.committer.submit(KEEP, item) for item in items), return_exceptions=True
    )


def stored(results: Sequence[Kept | BaseException]) -> list[bool]:
    """Say of each whether it was kept."""
    return [isinstance(made, Kept) and made.document is not None for made in results]


async def custody_of(vault: Vault, item: Keeping) -> tuple[str | None, int, int]:
    """Return the custody of a document, and how many keys and outcomes it has."""
    custody = await vault.pool.fetchval("select custody from document where id = $1", item.key.id)
    keys = await vault.pool.fetchval("select count(*) from data_key where id = $1", item.key.id)
    outcomes = await vault.pool.fetchval(
        "select count(*) from access_record where document = $1 and phase = 'outcome'", item.key.id
    )
    return custody, keys, outcomes


async def lose_connection(pool: asyncpg.Pool, name: str) -> None:
    """Cut the connection of a committer, from the other end."""
    await pool.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 "
        "and datname = current_database()",
        f"portvault-{name}",
    )


async def test_uploads_share_commits(vault: Vault) -> None:
    """Sixty uploads at once are durable after a few commits, each with its key and its record."""
    order = await open_order(vault)
    items = await asyncio.gather(*(announced(vault, order) for _ in range(60)))
    assert await vault.pool.fetchval("select count(distinct xmin::text) from document") <= 4
    results = await keep_all(vault, [await keeping(vault, item) for item in items])
    assert stored(results) == [True] * 60
    assert await vault.pool.fetchval("select count(distinct xmin::text) from document") <= 4
    assert await vault.pool.fetchval("select count(*) from data_key where scope = $1", order) == 61
    outcomes = "select count(*) from access_record where phase = 'outcome' and document is not null"
    assert await vault.pool.fetchval(outcomes) == 60


async def test_an_intent_is_as_durable_as_its_upload(vault: Vault) -> None:
    """The record of an announced upload and its row are committed by one transaction."""
    item = await announced(vault, await open_order(vault))
    assert await vault.pool.fetchval(
        "select d.xmin::text = r.xmin::text from document d, access_record r "
        "where d.id = $1 and r.id = $2",
        item.document,
        item.intent.id,
    )


async def test_a_stale_scope_fails_only_its_own_upload(vault: Vault) -> None:
    """A key wrapped under a scope that was re-keyed is not kept; the others of its group are."""
    items = await several(vault, 3)
    key = items[1].key
    items[1] = replace(items[1], key=replace(key, scope_epoch=key.scope_epoch + 1))
    results = await keep_all(vault, items)
    assert stored(results) == [True, False, True]
    assert results[1] == Kept(None, stale_scope=True)
    assert await custody_of(vault, items[1]) == ("receiving", 0, 0)
    assert await custody_of(vault, items[2]) == ("stored", 1, 1)


async def test_a_scope_that_is_being_sealed_delays_only_its_own_upload(vault: Vault) -> None:
    """While a seal has a scope locked, others of the group are kept, and that one afterwards."""
    items = await several(vault, 3)
    async with vault.pool.acquire() as conn, conn.transaction():
        await conn.execute("select from key_scope where id = $1 for update", items[1].key.scope)
        waiting = [asyncio.create_task(vault.committer.submit(KEEP, item)) for item in items]
        assert stored(await asyncio.gather(waiting[0], waiting[2])) == [True, True]
        assert stored(await keep_all(vault, await several(vault, 1))) == [True]
        assert not waiting[1].done()
    assert stored([await waiting[1]]) == [True]
    assert await custody_of(vault, items[1]) == ("stored", 1, 1)


async def test_an_upload_that_was_swept_up_fails_alone(vault: Vault) -> None:
    """An upload whose row is gone, or is being swept up, is not kept; the others are."""
    items = await several(vault, 3)
    await vault.pool.execute("delete from document where id = $1", items[0].key.id)
    async with vault.pool.acquire() as conn, conn.transaction():
        await conn.execute("select from document where id = $1 for update", items[1].key.id)
        waiting = asyncio.create_task(vault.committer.submit(KEEP, items[1]))
        assert stored(await keep_all(vault, [items[0], items[2]])) == [False, True]
        await conn.execute("delete from document where id = $1", items[1].key.id)
    assert await waiting == Kept(None, swept_up=True)
    assert await custody_of(vault, items[0]) == (None, 0, 0)


async def test_a_closed_order_fails_only_its_own_upload(vault: Vault) -> None:
    """Of uploads that are announced together only the one to a closed order is turned away."""
    orders = [await open_order(vault) for _ in range(3)]
    await change_order(vault, PORTING, orders[1], Status.CANCELLED)
    items = [
        Announcement(intent(document), document, order, "passport", None)
        for document, order in zip((uuid.uuid4() for _ in orders), orders, strict=True)
    ]
    results = await asyncio.gather(*(vault.committer.submit(ANNOUNCE, item) for item in items))
    assert [made.accepted for made in results] == [True, False, True]
    assert await vault.pool.fetchval("select count(*) from document") == 2
    intents = await vault.pool.fetchval(
        "select count(*) from access_record where id = any($1)", [item.intent.id for item in items]
    )
    assert intents == 3


async def test_an_order_that_is_being_changed_delays_only_its_own_upload(vault: Vault) -> None:
    """While somebody changes an order its uploads wait, and then see what it has become."""
    busy, free = await open_order(vault), await open_order(vault)
    document = uuid.uuid4()
    async with vault.pool.acquire() as conn, conn.transaction():
        await conn.execute("select from porting_order where id = $1 for update", busy)
        item = Announcement(intent(document), document, busy, "passport", None)
        waiting = asyncio.create_task(vault.committer.submit(ANNOUNCE, item))
        await announced(vault, free)
        assert not waiting.done()
        await conn.execute("update porting_order set status = 'cancelled' where id = $1", busy)
    assert await waiting == Announced(accepted=False)


async def test_one_key_is_claimed_once_in_a_group(vault: Vault) -> None:
    """Of two uploads with one Idempotency-Key in a group one is kept, of the other nothing."""
    order, claim = await open_order(vault), Claim("token:x", "again", b"f")
    items = [await keeping(vault, await announced(vault, order, claim)) for _ in range(2)]
    results = await keep_all(vault, [*items, *await several(vault, 1)])
    assert sorted(stored(results)[:2]) == [False, True]
    assert stored(results)[2]
    loser = items[stored(results).index(False)]
    assert await custody_of(vault, loser) == ("receiving", 0, 0)
    document = uuid.uuid4()
    again = Announcement(intent(document), document, order, "passport", claim)
    found = await vault.committer.submit(ANNOUNCE, again)
    winner = items[stored(results).index(True)].key.id
    assert found == Announced(accepted=False, earlier=winner)


async def test_what_the_database_refuses_fails_alone(vault: Vault) -> None:
    """An upload that the database cannot take is refused; who shared its group is served."""
    items = await several(vault, 5)
    items[1] = replace(items[1], media_type="a\x00b")
    items[3] = replace(items[3], size_bytes=2**70)
    results = await keep_all(vault, items)
    assert stored(results) == [True, False, True, False, True]
    assert isinstance(results[1], asyncpg.PostgresError)
    assert isinstance(results[3], asyncpg.DataError)
    assert stored(await keep_all(vault, await several(vault, 1))) == [True]


async def test_a_group_is_bounded(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """No group takes more than its limit, and the limit itself fits in one."""
    monkeypatch.setattr(committer_module, "GROUP_MAX", 10)
    order = await open_order(vault)
    items = [await keeping(vault, await announced(vault, order)) for _ in range(31)]
    tasks = [asyncio.create_task(vault.committer.submit(KEEP, item)) for item in items]
    assert stored(await asyncio.gather(*tasks)) == [True] * 31
    rows = await vault.pool.fetch("select count(*) as size from document group by xmin::text")
    assert max(row["size"] for row in rows) == 10


async def test_who_comes_first_is_served_first(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When more wait than a group takes, nobody is overtaken by who came later."""
    monkeypatch.setattr(committer_module, "GROUP_MAX", 4)
    order, served = await open_order(vault), list[int]()
    items = [await keeping(vault, await announced(vault, order)) for _ in range(20)]

    async def keep(number: int) -> None:
        await vault.committer.submit(KEEP, items[number])
        served.append(number)

    await asyncio.gather(*(keep(number) for number in range(20)))
    assert [number // 4 for number in served] == [number // 4 for number in range(20)]


async def test_waiters_are_bounded(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may wait is refused at once; those who wait are served."""
    items = await several(vault, 3)
    monkeypatch.setattr(committer_module, "WAITERS_MAX", 2)
    results = await keep_all(vault, items)
    assert stored(results) == [True, True, False]
    assert isinstance(results[2], DatabaseUnavailableError)


async def test_who_gives_up_while_waiting_is_left_out(vault: Vault) -> None:
    """A caller that is cancelled before its group is sent leaves nothing, and makes no record."""
    items, asked = await several(vault, 2), list[str]()

    def outcome() -> Record:
        asked.append("outcome")
        return record()

    items[0] = replace(items[0], outcome=outcome)
    tasks = [asyncio.create_task(vault.committer.submit(KEEP, item)) for item in items]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert stored(results) == [False, True]
    assert asked == []
    assert await custody_of(vault, items[0]) == ("receiving", 0, 0)


async def test_a_database_lost_in_the_middle_fails_the_group_and_no_more(
    vault: Vault, pool: asyncpg.Pool
) -> None:
    """When the connection goes in the middle of a commit all are told; the next ones are served."""
    items = await several(vault, 3)
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("lock table document in access exclusive mode")
        waiting = [asyncio.create_task(vault.committer.submit(KEEP, item)) for item in items]
        await asyncio.sleep(0.2)
        await lose_connection(pool, "keeper")
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(made) for made in results] == [DatabaseUnavailableError] * 3
    assert await custody_of(vault, items[0]) == ("receiving", 0, 0)
    assert stored(await keep_all(vault, items)) == [True] * 3


@pytest.fixture
async def keeper(config: Config, vault: Vault, wire: Wire) -> AsyncIterator[GroupCommitter]:
    """Give a keeper whose own connection goes over a wire."""
    async with GroupCommitter(
        await wire.start(), vault.pool, timeout_seconds=1.0, record_timeout_seconds=1.0
    ) as made:
        yield made


async def test_a_lost_answer_is_no_acknowledgement(
    vault: Vault, keeper: GroupCommitter, wire: Wire
) -> None:
    """A commit that nobody heard of is reported as failed, and what it kept is whole."""
    first, second = await several(vault, 2)
    assert stored([await keeper.submit(KEEP, first)]) == [True]
    wire.to_vault.clear()
    with pytest.raises(DatabaseUnavailableError):
        await keeper.submit(KEEP, second)
    assert await custody_of(vault, second) == ("stored", 1, 1)
    wire.leave_stalled()
    assert stored([await keeper.submit(KEEP, (await several(vault, 1))[0])]) == [True]


async def test_closing_keeps_what_waits(config: Config, tmp_path: Path) -> None:
    """What was handed over before the end is kept; afterwards nothing is taken."""
    del tmp_path
    async with open_vault(config, dsn=config.database) as vault:
        items = await several(vault, 2)
        tasks = [asyncio.create_task(vault.committer.submit(KEEP, item)) for item in items[:1]]
        await asyncio.sleep(0)
    assert stored(await asyncio.gather(*tasks)) == [True]
    with pytest.raises(DatabaseUnavailableError):
        await vault.committer.submit(KEEP, items[1])


async def test_a_group_waits_some_turns_for_more_where_there_was_company(
    database: str, pool: asyncpg.Pool
) -> None:
    """Who comes a few turns of the loop later comes along; where all come alone, nobody waits."""
    sizes: list[int] = []

    async def together(conn: Connection, items: Sequence[int]) -> list[int | None]:
        del conn
        sizes.append(len(items))
        return list(items)

    async def alone(conn: Connection, item: int) -> int:
        del conn
        return item

    async def after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await committer.submit(counting, turns)

    few = committer_module.COMPANY_TURNS - 1
    counting = Shared("turns", together, alone)
    async with GroupCommitter(
        database, pool, timeout_seconds=5.0, record_timeout_seconds=5.0
    ) as committer:
        for turns in (few, 0, few):
            await asyncio.gather(after(0), after(turns))
    assert sizes == [1, 1, 2, 2]


async def test_a_group_does_not_wait_for_ever(database: str, pool: asyncpg.Pool) -> None:
    """A statement that never ends is given up within the limit, and so is who waits behind it."""

    async def hang(conn: Connection, items: Sequence[int]) -> list[int | None]:
        await conn.execute("select pg_sleep(60)")
        return list(items)

    async def alone(conn: Connection, item: int) -> int:
        del conn
        return item

    hanging = Shared("hanging", hang, alone)
    async with GroupCommitter(
        database, pool, timeout_seconds=0.3, record_timeout_seconds=5.0
    ) as committer:
        async with asyncio.timeout(5):
            results = await asyncio.gather(
                *(committer.submit(hanging, number) for number in range(3)), return_exceptions=True
            )
    assert [type(made) for made in results] == [DatabaseUnavailableError] * 3
