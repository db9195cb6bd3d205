"""Attempts to deliver a fax begin in the commit that makes their intents durable: both or none."""

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import asyncpg

from tests.fixtures_server import serving
from tests.fixtures_telefax import Faxes
from vault.app import open_vault
from vault.context import Vault
from vault.sql.faxes import OPEN, Opening, open_many


async def reads(pool: asyncpg.Pool, fax: str) -> list[tuple[str, str | None]]:
    """Return how each access to the fax was decided, and how it ended."""
    rows = await pool.fetch(
        """
        select i.decision, o.result from access_record i
            left join access_record o on o.intent = i.id and o.phase = 'outcome'
        where i.phase = 'intent' and i.action = 'fax.read' and i.document = $1
        """,
        uuid.UUID(fax),
    )
    return [(row["decision"], row["result"]) for row in rows]


async def concluded(pool: asyncpg.Pool, fax: str, count: int) -> Counter[tuple[str, str | None]]:
    """Wait until so many accesses have ended, which they do after the last byte went out."""
    async with asyncio.timeout(10):
        while True:
            found = await reads(pool, fax)
            if len(found) >= count and all(result for _, result in found):
                return Counter(found)


async def test_each_of_many_attempts_is_on_record_once(
    pool: asyncpg.Pool, faxes: Faxes, fax: bytes
) -> None:
    """Also those that the same commit leaves out, and those that find another under way."""
    identity, path = await faxes.taken(fax), "/v1/faxes/{}/content?alone={}"
    together = await asyncio.gather(
        *(
            faxes.api.call("GET", path.format(identity, alone), role="fax-gateway")
            for alone in ("false", "true") * 8
        )
    )
    statuses = Counter(status for status, *_ in together)
    assert statuses[200] >= 8
    assert statuses.total() == statuses[200] + statuses[409] == 16
    assert await concluded(pool, identity, 16) == Counter(
        {("allow", "completed"): statuses[200], ("allow", "failed"): statuses[409]}
    )


async def test_an_attempt_waits_for_a_fax_that_is_locked(
    pool: asyncpg.Pool, faxes: Faxes, fax: bytes
) -> None:
    """Its intent does not: it is on record while the fax is waited for, and ends as that does."""
    identity = await faxes.taken(fax)
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("select from fax where id = $1 for update", uuid.UUID(identity))
        reading = asyncio.create_task(faxes.content(identity))
        async with asyncio.timeout(10):
            while await reads(pool, identity) != [("allow", None)]:
                await asyncio.sleep(0.01)
        assert not reading.done()
    assert (await reading)[:2] == (200, fax)
    assert await concluded(pool, identity, 1) == Counter({("allow", "completed"): 1})


async def test_a_fax_that_stays_locked_is_told_and_recorded(
    vault: Vault, pool: asyncpg.Pool, fax: bytes
) -> None:
    """What failed is said of the database, and the intent has its outcome at once."""
    hurried = replace(vault.config, record_timeout_seconds=0.5)
    async with open_vault(hurried, dsn=vault.config.database) as other, serving(other) as api:
        faxes = Faxes(api)
        identity = await faxes.taken(fax)
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute("select from fax where id = $1 for update", uuid.UUID(identity))
            async with asyncio.timeout(30):
                status, problem, _ = await faxes.content(identity)
        assert (status, "database" in problem["detail"]) == (503, True), problem
        assert await concluded(pool, identity, 1) == Counter({("allow", "failed"): 1})


async def test_an_attempt_that_cannot_be_recorded_does_not_begin(
    pool: asyncpg.Pool, faxes: Faxes, fax: bytes
) -> None:
    """No byte goes out, and the fax waits as it did."""
    identity = await faxes.taken(fax)
    await pool.execute("revoke insert on access_record from portvault_service")
    status, problem, _ = await faxes.content(identity)
    assert (status, "records cannot be written" in problem["detail"]) == (503, True), problem
    await pool.execute("grant insert on access_record to portvault_service")
    assert await reads(pool, identity) == []
    assert (await faxes.show(identity))[1]["state"] == "received"
    assert (await faxes.content(identity))[:2] == (200, fax)


async def test_an_attempt_that_is_begun_again_is_not_recorded_again(
    vault: Vault, pool: asyncpg.Pool, faxes: Faxes, fax: bytes
) -> None:
    """After a seal re-keyed its scope, only the key is fetched again."""
    identity, now = uuid.UUID(await faxes.taken(fax)), vault.clock()
    again = Opening(identity, now, now + timedelta(minutes=1), alone=False, intent=None)
    async with pool.acquire() as conn:
        (opened,) = await open_many(conn, [again])
    assert opened is not None
    assert opened.key is not None
    assert await vault.committer.submit(OPEN, again) == opened
    assert await reads(pool, str(identity)) == []
