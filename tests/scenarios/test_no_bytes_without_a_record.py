"""No bytes without a record: nothing is handed out before the record of the attempt is durable."""

import asyncio
import io
import uuid
from typing import Any

import asyncpg
import pytest

from tests.fixtures_server import Api
from vault.context import Vault
from vault.domain.decision import Reason

READS = "select * from access_record where action = 'document.read' order by at"
KILL = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'portvault-recorder' and datname = current_database()
"""


async def read(api: Api, document: str, reference: str) -> tuple[int, Any, str | None]:
    """Read a document with a reference of one's own."""
    headers = {"Access-Purpose": "verify-identity", "Access-Reference": reference}
    status, body, response = await api.call(
        "GET", f"/v1/documents/{document}/content", headers=headers
    )
    return status, body, response.headers.get("Retry-After")


async def stored(api: Api, scan: bytes) -> str:
    """Put a document into the vault."""
    status, document = await api.put(await api.order(), scan)
    assert status == 201
    return str(document["id"])


async def outcome(vault: Vault) -> Any:
    """Wait for the outcome of a read."""
    for _ in range(100):
        rows = await vault.pool.fetch(READS)
        if found := [row for row in rows if row["phase"] == "outcome"]:
            return found[0]
        await asyncio.sleep(0.05)
    raise AssertionError("no outcome was recorded")


async def test_a_read_waits_for_its_record(
    api: Api, vault: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """While the record cannot be committed not even the status goes out; then all of it does."""
    document = await stored(api, passport)
    async with pool.acquire() as conn:
        block = conn.transaction()
        await block.start()
        await conn.execute("lock table access_record in share mode")
        asked = asyncio.create_task(read(api, document, "T-1"))
        await asyncio.sleep(0.5)
        assert not asked.done()
        await block.rollback()
    status, body, _ = await asked
    assert (status, body) == (200, passport)
    await outcome(vault)
    intent, ended = await vault.pool.fetch(READS)
    assert (intent["phase"], intent["reference"]) == ("intent", "T-1")
    assert (ended["intent"], ended["result"]) == (intent["id"], "completed")
    assert ended["size_bytes"] == len(passport)


async def test_without_records_nothing_is_read_and_then_it_is_again(
    api: Api, vault: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """With the log locked away every read is 503 with when to try again; later all is well."""
    document = await stored(api, passport)
    for away, back in (
        ("alter table access_record rename to away", "alter table away rename to access_record"),
        ("alter table log_queue rename to away", "alter table away rename to log_queue"),
    ):
        await pool.execute(away)
        for status, body, retry in await asyncio.gather(
            *(read(api, document, f"T-{number}") for number in range(10))
        ):
            assert (status, body["status"]) == (503, 503)
            assert retry is not None
            assert passport[:100] not in str(body).encode()
        await pool.execute(back)
        assert (await read(api, document, "T-10"))[:2] == (200, passport)


async def test_a_log_that_is_held_up_refuses_in_time(
    api: Api, vault: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """A record that takes longer than the time limit is a refusal, not a wait without end."""
    document = await stored(api, passport)
    limit = vault.config.record_timeout_seconds
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("lock table access_record in share mode")
        async with asyncio.timeout(limit + 3):
            assert (await read(api, document, "T-1"))[0] == 503
    assert (await read(api, document, "T-2"))[:2] == (200, passport)


async def test_every_answer_has_its_record_though_the_connection_keeps_dying(
    api: Api,
    vault: Vault,
    pool: asyncpg.Pool,
    passport: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the recorder's connection killed over and over, no document is out unrecorded."""
    document = await stored(api, passport)
    answered: list[str] = []
    refused: list[str] = []
    another = asyncio.Event()

    async def reader() -> None:
        while len(answered) < 50 or not refused:
            reference = uuid.uuid4().hex
            status, body, _ = await read(api, document, reference)
            assert status in (200, 503)
            if status == 200:
                assert body == passport
                answered.append(reference)
                another.set()
            else:
                refused.append(reference)

    async def killer() -> None:
        while True:
            another.clear()
            await pool.execute(KILL)
            # The others are on their way when one has been answered; that is when it hurts.
            await another.wait()

    killing = asyncio.create_task(killer())
    await asyncio.gather(*(reader() for _ in range(8)))
    killing.cancel()
    rows = await vault.pool.fetch(READS)
    intents = {row["reference"] for row in rows if row["phase"] == "intent"}
    assert set(answered) <= intents
    # A lost connection is nothing unknown, whatever the driver was doing when it went (which
    # forgets a future of its own when that was a COPY, and asyncio says so).
    assert not [line for line in caplog.records if line.exc_info and line.name != "asyncio"]


async def test_the_record_comes_before_the_bytes_are_even_fetched(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """A read that finds no object was recorded, and its failure too."""
    document = await stored(api, passport)
    await vault.stores["uk"].purge(f"documents/{document}")
    status, _, _ = await read(api, document, "T-1")
    assert status >= 500
    await outcome(vault)
    intent, ended = await vault.pool.fetch(READS)
    assert (intent["phase"], intent["decision"]) == ("intent", "allow")
    assert (ended["result"], ended["size_bytes"]) == ("failed", 0)


@pytest.mark.parametrize(
    "role, purpose, reason",
    [
        ("porting", None, Reason.PURPOSE_MISSING),
        ("porting", "curiosity", Reason.PURPOSE),
        ("compliance", "verify-identity", Reason.ROLE),
        ("porting-sg", "verify-identity", Reason.REGION),
    ],
)
async def test_a_refusal_is_recorded_and_has_no_outcome(
    api: Api, vault: Vault, passport: bytes, role: str, purpose: str | None, reason: Reason
) -> None:
    """Who may not read is written down before being told, and what they wrote is not."""
    document = await stored(api, passport)
    status, body = await api.get(document, purpose=purpose, role=role)
    assert status in (403, 404, 422)
    assert "curiosity" not in str(body)
    (intent,) = await vault.pool.fetch(READS)
    assert (intent["decision"], intent["reason"]) == ("deny", reason)
    assert intent["purpose"] in (None, "verify-identity")


async def test_a_refusal_that_cannot_be_recorded_is_not_told(
    api: Api, vault: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """Without records even a no is 503: nobody probes the vault unseen."""
    document = await stored(api, passport)
    await pool.execute("alter table access_record rename to away")
    status, _ = await api.get(document, role="compliance")
    assert status == 503
    await pool.execute("alter table away rename to access_record")


async def test_a_reader_that_hangs_up_leaves_how_far_it_came(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """The outcome of a read that was broken off says so, and how many bytes went out."""
    scan = passport + bytes(16 * 1024 * 1024)
    path = f"/v1/orders/{await api.order()}/documents?kind=passport"
    status, made, _ = await api.call("POST", path, data=io.BytesIO(scan))
    assert status == 201
    headers = {
        "Authorization": f"Bearer {api.tokens['porting']}",
        "Access-Purpose": "verify-identity",
    }
    path = f"{api.url}/v1/documents/{made['id']}/content"
    response = await api.session.get(path, headers=headers)
    await response.content.readexactly(1000)
    response.close()
    ended = await outcome(vault)
    assert (ended["result"], ended["reason"]) == ("aborted", "disconnected")
    assert 1000 <= ended["size_bytes"] < len(scan)
