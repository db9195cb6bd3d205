"""What a search of the log costs does not grow with the log, whatever is asked."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from vault.context import Vault
from vault.domain.records import Wanted
from vault.sql.log_search import statement

START, RECORDS = datetime(2025, 3, 1, tzinfo=UTC), 20_000
EVERYTHING = Wanted()
#: Each question alone, about what one record in a thousand answers.
QUESTIONS = {
    "document": Wanted(document=UUID(int=7)),
    "order": Wanted(order=UUID(int=7)),
    "principal": Wanted(principal="token:rare"),
    "purpose": Wanted(purpose="rare-purpose"),
    "action": Wanted(action="rare.action"),
    "refused": Wanted(refused=True),
    "transfers": Wanted(transfers=True),
    "since": Wanted(since=START + timedelta(seconds=RECORDS - 20)),
    "until": Wanted(until=START + timedelta(seconds=20)),
}


def test_every_question_is_tried() -> None:
    """A filter without an index of its own fails here as soon as it is written."""
    assert set(QUESTIONS) == set(Wanted.__dataclass_fields__)


@pytest.fixture
async def grown(vault: Vault, pool: asyncpg.Pool) -> asyncpg.Pool:
    """Give a log in which one record in a thousand is what is asked for."""
    async with pool.acquire() as conn:
        await conn.execute(
            """
            insert into access_record (id, region, at, phase, principal, role, action, document,
                "order", purpose, decision, region_to)
            select gen_random_uuid(), 'uk', $1::timestamptz + n * interval '1 second', 'intent',
                case when rare then 'token:rare' else 'token:x' end, 'porting',
                case when rare then 'rare.action' else 'document.read' end,
                case when rare then $3::uuid else gen_random_uuid() end,
                case when rare then $3::uuid else gen_random_uuid() end,
                case when rare then 'rare-purpose' else 'verify-identity' end,
                case when rare then 'deny' else 'allow' end,
                case when rare then 'sg' else 'uk' end
            from (select n, n % 1000 = 0 rare from generate_series(0, $2 - 1) n) made
            """,
            START,
            RECORDS,
            UUID(int=7),
        )
        await conn.execute(
            """
            insert into log_leaf (region, index, record, leaf_hash, at, action, principal, document,
                "order", purpose, decision, region_to)
            select 'uk', row_number() over (order by at) - 1, id, ''::bytea, at, action, principal,
                document, "order", purpose, decision, region_to
            from access_record where region = 'uk' and at < $1
            """,
            START + timedelta(days=1),
        )
        await conn.execute("delete from log_queue")
        await conn.execute("analyze log_leaf, access_record, log_queue")
    return pool


async def test_a_question_reads_what_it_finds_and_little_more(grown: asyncpg.Pool) -> None:
    """Neither the rows that are passed over nor those that are sorted grow with the log."""
    for name, wanted in QUESTIONS.items():
        text, values = statement("uk", wanted, before=None, limit=50, without=UUID(int=0))
        rows = await grown.fetch(f"explain (analyze, timing off) {text}", *values)
        plan = "\n".join(row[0] for row in rows)
        passed_over = [int(number) for number in re.findall(r"Removed by Filter: (\d+)", plan)]
        read = [int(float(number)) for number in re.findall(r"actual rows=([\d.]+)", plan)]
        assert sum(passed_over) <= 20, (name, plan)
        assert max(read) <= 60, (name, plan)


async def test_the_last_page_costs_what_the_first_one_does(grown: asyncpg.Pool) -> None:
    """Further pages begin where the one before ended."""
    before = START + timedelta(seconds=30), UUID(int=0)
    text, values = statement(
        "uk", replace(EVERYTHING), before=before, limit=50, without=UUID(int=0)
    )
    rows = await grown.fetch(f"explain (analyze, timing off) {text}", *values)
    plan = "\n".join(row[0] for row in rows)
    assert not [n for n in re.findall(r"Removed by Filter: (\d+)", plan) if int(n) > 20], plan
