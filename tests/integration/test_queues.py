"""Whatever waits is counted, has an age, and is named when it waits for too long."""

import re
from uuid import UUID

import asyncpg

from tests.fixtures_server import Api
from vault.actions.expire import expire
from vault.actions.health import REMEDIES, queues_of
from vault.actions.keys import seal, worker
from vault.actions.log_publish import publish_log, sequence_log
from vault.commands import doctor
from vault.context import Vault
from vault.domain.holds import EVERY_CUSTOMER
from vault.sql import documents as documents_sql
from vault.sql import retention as retention_sql
from vault.sql.health import NO_QUEUE, OTHER_STEPS, ROWS
from vault.worker import reconcilers

LONG_AGO = "now() - interval '3 days'"
#: How each queue comes to hold a row for too long.
PLANT = {
    "log": f"update log_queue set at = {LONG_AGO} where region = 'uk'",
    "seal": f"""
        insert into key_dirty (region, scope, since) select region, id, {LONG_AGO} from key_scope
        """,
    "mirror": f"update key_changed set since = {LONG_AGO}",
    "mark-sealed": f"update document set shredded_at = {LONG_AGO} where custody = 'shredded'",
    "purge": f"update document set shredded_at = {LONG_AGO} where custody = 'shredded'",
    "certify": f"""
        update document set custody = 'sealed', sealed_at = {LONG_AGO}, purged_at = {LONG_AGO}
        where id = (select min(id::text)::uuid from document where custody = 'shredded')
        """,
    "expire": f"update document set due_at = {LONG_AGO} where kind = 'loa'",
    "review": f"update document set reviewed = 0, review_since = {LONG_AGO} where kind = 'loa'",
    "order-details": f"""
        insert into order_look (region, order_id, since)
        select region, id, {LONG_AGO} from porting_order
        """,
    "number-index": f"""
        with old as (update number_index_key set created_at = {LONG_AGO})
        update number_index set key = null, mac = null
        """,
    "deliver": f"""
        with told as (insert into signal (id, region, type, at, payload)
            values ('00000000-0000-4000-8000-000000000001', 'uk', 'x', now(), '{{}}'))
        insert into signal_delivery (signal, endpoint, region, state, next_at)
        values ('00000000-0000-4000-8000-000000000001', 'a', 'uk', 'waiting', {LONG_AGO})
        """,
    "signals-dead": f"""
        insert into signal_delivery (signal, endpoint, region, state, next_at)
        values ('00000000-0000-4000-8000-000000000001', 'b', 'uk', 'dead', {LONG_AGO})
        """,
    "fax-relay": "",
    "fax-custody": "",
    "fax-expire": f"""
        insert into fax (id, region, direction, channel, state, custody, media_type, size_bytes,
            pages, stream_header, callee_masked, facts, principal, next_attempt_at, received_at)
        values (gen_random_uuid(), 'uk', 'inbound', 'mail', 'received', 'stored', 'image/tiff', 1,
            1, '', '+44', '{{}}', 'token:x', {LONG_AGO}, {LONG_AGO})
        """,
    "fax-purge": f"""
        insert into fax (id, region, direction, channel, state, custody, media_type, size_bytes,
            pages, stream_header, callee_masked, facts, principal, next_attempt_at, received_at,
            ended_at, last_generation)
        values (gen_random_uuid(), 'uk', 'inbound', 'mail', 'delivered', 'shredded', 'image/tiff',
            1, 1, '', '+44', '{{}}', 'token:x', now(), {LONG_AGO}, {LONG_AGO}, 1)
        """,
    "collect": f"""
        insert into document (id, region, order_id, kind, custody, received_at)
        select gen_random_uuid(), 'uk', id, 'loa', 'receiving', {LONG_AGO}
        from porting_order limit 1
        """,
    "interrupted": f"update log_open set at = {LONG_AGO}",
}


async def test_what_waits_in_any_queue_is_named_when_it_is_late(
    api: Api, vault: Vault, passport: bytes, authorisation: bytes
) -> None:
    """No queue is late in a vault that was used a moment ago; each is, when nothing empties it."""
    assert set(PLANT) == set(ROWS) == set(REMEDIES)
    order = await api.order()
    await api.put(order, authorisation, "loa")
    for _ in range(2):
        _, scan = await api.put(order, passport)
        path = f"/v1/documents/{scan['id']}/actions/shred"
        status, said, _ = await api.call("POST", path, json={"reason": "withdrawn"})
        assert status == 200, said
    await seal(vault, worker(vault), "uk")
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    sound = dict.fromkeys(("uk", "sg"), ("ok", "nothing waits for too long"))
    async with vault.pool.acquire() as conn:
        assert [queue for queue in await queues_of(vault.config, conn, "uk") if queue.late] == []
        assert await doctor._queues(vault.config, conn) == sound
    await api.order()
    owner = await asyncpg.connect(vault.config.database)
    await owner.execute(
        "insert into log_open (intent, region, at) select id, region, at "
        "from access_record limit 1 on conflict do nothing"
    )
    for statement in filter(None, PLANT.values()):
        await owner.execute(statement)
    await owner.close()
    async with vault.pool.acquire() as conn:
        found = {queue.name: queue for queue in await queues_of(vault.config, conn, "uk")}
        verdict, says = (await doctor._queues(vault.config, conn))["uk"]
    assert [name for name in ROWS if not found[name].late] == []
    assert verdict == "fail"
    assert [name for name in ROWS if f"{name}: " not in says] == sorted(doctor.OWN_LINES)
    async with api.session.get(api.url + "/metrics") as response:
        told = (await response.text()).splitlines()
    for name in ROWS:
        labels = f'{{queue="{name}",region="uk"}}'
        assert f"portvault_queue_overdue{labels} 1.0" in told
        age = f"portvault_queue_oldest_seconds{labels} "
        (oldest,) = [one for one in told if one.startswith(age)]
        assert float(oldest.split()[-1]) > 86400
    assert 'portvault_queue_overdue{queue="purge",region="sg"} 0.0' in told
    for what in ("checkpoint", "mirror", "seal"):
        age = f'portvault_last_seconds{{region="uk",what="{what}"}} '
        (last,) = [one for one in told if one.startswith(age)]
        assert float(last.split()[-1]) < 600


async def test_what_a_hold_keeps_does_not_wait_for_a_purge(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Whatever the hold is on, the queue counts what the worker would purge, and that alone."""
    order = await api.order()
    _, scan = await api.put(order, passport)
    path = f"/v1/documents/{scan['id']}/actions/shred"
    assert (await api.call("POST", path, json={"reason": "withdrawn"}))[0] == 200
    await vault.pool.execute(PLANT["purge"])
    hold = await vault.pool.fetchval(
        """
        insert into hold (id, region, reason, authority, placed_by, placed_at)
        values (gen_random_uuid(), 'uk', 'legal', 'court', 'token:x', now()) returning id
        """
    )
    customer = await vault.pool.fetchval("select customer from porting_order")
    targets = [
        ("document", UUID(scan["id"])),
        ("order_id", UUID(order)),
        ("customer", customer),
        ("customer", EVERY_CUSTOMER),
        ("customer", "another"),
    ]
    for column, target in targets:
        async with vault.pool.acquire() as conn:
            await conn.execute("update hold_target set released = true")
            await conn.execute(
                f"insert into hold_target (hold, region, {column}) values ($1, 'uk', $2)",
                hold,
                target,
            )
            found = {queue.name: queue for queue in await queues_of(vault.config, conn, "uk")}
            purged = await documents_sql.unpurged(conn, "uk", 10)
        assert len(purged) == (target == "another")
        assert (found["purge"].length.count, found["purge"].late) == (len(purged), bool(purged))


async def test_what_waits_to_be_judged_anew_waits_from_when_it_was_to_be(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """A hold, a policy: from that time on, and a second one in between does not make it younger."""
    order = await api.order()
    await api.put(order, passport)
    await expire(vault, "uk")

    async def waits() -> tuple[int, float]:
        async with vault.pool.acquire() as conn:
            found = {queue.name: queue for queue in await queues_of(vault.config, conn, "uk")}
        return found["review"].length.count, found["review"].length.seconds

    assert await waits() == (0, 0.0)
    await vault.pool.execute(f"update document set review_since = {LONG_AGO}")
    for least, most in ((0, 600), (86400, 10**6)):
        async with vault.pool.acquire() as conn:
            await retention_sql.look_again_at_orders(conn, [UUID(order)])
        count, seconds = await waits()
        assert count == 1
        assert least <= seconds < most
        await vault.pool.execute(f"update document set review_since = {LONG_AGO}")
    await expire(vault, "uk")
    assert await waits() == (0, 0.0)
    await vault.pool.execute(
        f"""
        insert into retention_policy (version, text, applied_at, applied_by)
        select max(version) + 1, $1, {LONG_AGO}, 'token:x' from retention_policy
        """,
        vault.policy_text,
    )
    count, seconds = await waits()
    assert (count, seconds > 86400) == (1, True)


async def test_a_queue_that_is_new_needs_its_line(vault: Vault, pool: asyncpg.Pool) -> None:
    """Each step of the worker and each table is a queue, or says why nothing waits there."""
    steps = {one.name for one in reconcilers(vault)}
    assert steps - set(OTHER_STEPS) <= set(ROWS), "a step that empties a queue nobody looks at"
    assert set(OTHER_STEPS) <= steps
    tables = {
        row["table_name"]
        for row in await pool.fetch(
            "select table_name from information_schema.tables where table_schema = 'public'"
        )
    }
    looked_at = set(re.findall(r"(?:from|join) ([a-z_]+)", " ".join(ROWS.values())))
    assert tables - looked_at - set(NO_QUEUE) == set()
    assert set(NO_QUEUE) - tables == set()
