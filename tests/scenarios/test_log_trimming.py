"""The log's own retention: what records say goes when its time is over, and the tree holds."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.access_records import append
from tests.fixtures_server import Api
from vault.actions.log_publish import adopt_published, publish_log, sequence_log
from vault.actions.log_records import latest_checkpoint, trim_log, verify_region
from vault.audit.auditor import Audit
from vault.context import ObjectStore, Vault
from vault.domain.access import Principal
from vault.domain.records import FLOOR, parse_log_policy
from vault.errors import ConfigurationError, ObjectStoreUnavailableError
from vault.sql.connection import transaction

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=8 * 366), NOW - timedelta(days=300)
TABLES = (
    "log_queue",
    "log_leaf",
    "log_checkpoint",
    "access_record",
    "log_published",
    "log_minimum",
)


async def step(vault: Vault) -> None:
    """Order what waits, and publish it."""
    while await sequence_log(vault, "uk"):
        pass
    await publish_log(vault, "uk")


async def bodies(pool: asyncpg.Pool, before: int = 10**9) -> int:
    """Return how many records below a place still say something."""
    found: int = await pool.fetchval(
        "select count(*) from access_record r join log_leaf l on l.record = r.id"
        " where l.region = 'uk' and l.index < $1",
        before,
    )
    return found


@pytest.fixture
async def aged(vault: Vault) -> tuple[Vault, list[str]]:
    """Give a log with 600 records that are over, then 300 that are not; and checkpoints of it."""
    held = []
    for number, at in ((300, OLD), (300, OLD + timedelta(days=30)), (300, YOUNG)):
        await append(vault, number, at=at, reference="T-1")
        await step(vault)
        held.append(await latest_checkpoint(vault, COMPLIANCE, "uk"))
        await step(vault)
    return vault, held


async def audit(api: Api, vault: Vault, held: list[str]) -> dict[str, Any]:
    """Return the auditor's verdict on an export."""
    made = Audit(vault.signer.vkey, held)
    headers = {"Authorization": f"Bearer {api.tokens['compliance']}"}
    url = f"{api.url}/v1/access-records/export?region=uk"
    async with api.session.get(url, headers=headers) as response:
        for line in io.BytesIO(await response.read()):
            made.take(line)
    return made.verdict()


async def test_what_is_over_goes_and_the_tree_holds(
    aged: tuple[Vault, list[str]], api: Api, pool: asyncpg.Pool
) -> None:
    """Whole bundles of old records lose their bodies; each verifier and each proof still holds."""
    vault, held = aged
    # The looks that made the held checkpoints are of today, and end the old stretch at 300.
    assert await trim_log(vault, "uk") == 256
    assert await trim_log(vault, "uk") == 0
    assert (await bodies(pool, 256), await bodies(pool) > 600) == (0, True)
    log = vault.config.home / "objects" / "uk" / "log"
    assert not (log / "tile/entries/000").exists()
    assert (log / "tile/0/000").exists()
    (minimum,) = log.glob("minimum-*")
    assert b"portvault/uk#minimum\n256\n" in minimum.read_bytes()
    await step(vault)
    verdict = await verify_region(vault, COMPLIANCE, "uk", held=held)
    assert verdict.good, verdict
    found = await audit(api, vault, held)
    assert found["findings"] == []
    for index in (0, 255, 256, 700):
        status, _, _ = await api.call("GET", f"/v1/log/uk/inclusion?index={index}")
        assert status == 200
    status, _, _ = await api.call("GET", "/v1/log/uk/tile/entries/000", role="compliance")
    assert status == 404
    rows = await pool.fetch("select * from access_record where action = 'log.trim' order by at")
    assert [(row["principal"], row["phase"]) for row in rows] == [
        ("worker", "intent"),
        ("worker", "outcome"),
    ]


async def test_the_database_itself_lets_nothing_younger_go(
    aged: tuple[Vault, list[str]], pool: asyncpg.Pool
) -> None:
    """Neither the service nor the owner drops what is not over, or what no statement covers."""
    vault, _ = aged
    for statement in ("select trim_log('uk', 0, 256)", "select trim_log('uk', 0, 900)"):
        with pytest.raises(asyncpg.RaiseError, match="no signed statement"):
            await vault.pool.execute(statement)
    with pytest.raises(asyncpg.RaiseError, match="young"):
        await vault.pool.execute("select declare_log_minimum('uk', 900, 'x')")
    await pool.execute("insert into log_minimum (region, size, note) values ('uk', 900, 'x')")
    for role in (vault.pool, pool):
        with pytest.raises(asyncpg.RaiseError, match="only ever added to"):
            await role.execute("select trim_log('uk', 0, 900)")
    for statement in (
        "delete from access_record where at > now() - interval '1 year'",
        "update log_leaf set at = null where index = 0",
        "update log_leaf set leaf_hash = '' where index = 0",
        "update access_record set reference = null",
        "delete from log_leaf where index = 0",
    ):
        with pytest.raises(asyncpg.RaiseError, match="only ever added to"):
            await pool.execute(statement)
    assert await bodies(pool) > 900


async def test_who_takes_records_away_beyond_the_statement_is_found(
    aged: tuple[Vault, list[str]], pool: asyncpg.Pool
) -> None:
    """Old bodies that nobody signed away are missing ones, and a forged statement is none."""
    vault, _ = aged
    await trim_log(vault, "uk")
    await pool.execute(
        "delete from access_record using log_leaf l"
        " where l.record = id and l.region = 'uk' and l.index = 270"
    )
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert dict(verdict.first_offending) == {"intact": 270, "complete": 270}
    await pool.execute("update log_minimum set note = replace(note, '256', '512')")
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert dict(verdict.first_offending) == {"intact": 0, "complete": 0}


async def test_a_crash_while_trimming_is_made_good(
    aged: tuple[Vault, list[str]], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement without its trimming, and bodies gone with their bundles left, are finished."""
    vault, held = aged
    purge = type(vault.stores["uk"]).purge

    async def fail(store: object, name: str) -> int:
        raise ObjectStoreUnavailableError(name)

    monkeypatch.setattr(type(vault.stores["uk"]), "purge", fail)
    with pytest.raises(ObjectStoreUnavailableError):
        await trim_log(vault, "uk")
    assert await bodies(pool, 256) == 0
    bundle = vault.config.home / "objects/uk/log/tile/entries/000"
    assert bundle.exists()
    monkeypatch.setattr(type(vault.stores["uk"]), "purge", purge)
    assert await trim_log(vault, "uk") == 0
    assert not bundle.exists()
    await step(vault)
    assert (await verify_region(vault, COMPLIANCE, "uk", held=held)).good


async def test_who_looks_at_the_clock_does_not_wait_for_the_trimming(
    aged: tuple[Vault, list[str]], pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that answers slowly keeps nobody from the row that every look writes."""
    vault, _ = aged
    seen = list[str]()
    purge = type(vault.stores["uk"]).purge

    async def look(store: ObjectStore, name: str) -> int:
        async with transaction(pool) as conn:
            found = await conn.fetchval(
                "select region from expiry_clock where region = 'uk' for update skip locked"
            )
            seen.append(found)
        return await purge(store, name)

    monkeypatch.setattr(type(vault.stores["uk"]), "purge", look)
    await trim_log(vault, "uk")
    assert set(seen) == {"uk"}


async def test_a_restored_database_is_trimmed_again(
    aged: tuple[Vault, list[str]], pool: asyncpg.Pool
) -> None:
    """A backup from before loses what was trimmed since; one that never had it gets the hashes."""
    vault, held = aged
    async with pool.acquire() as conn:
        for table in TABLES:
            await conn.execute(f"create table kept_{table} as select * from {table}")
        await trim_log(vault, "uk")
        await step(vault)
        for keep in ("select * from kept_{}", "select * from kept_{} where false"):
            await conn.execute("set session_replication_role = replica")
            for table in TABLES:
                await conn.execute(f"delete from {table}")
                system = "overriding system value" if table == "log_queue" else ""
                await conn.execute(f"insert into {table} {system} {keep.format(table)}")
            await conn.execute("set session_replication_role = default")
            async with transaction(pool) as restoring:
                await adopt_published(vault, restoring, "uk")
            assert await bodies(pool, 256) == 0
            await step(vault)
            verdict = await verify_region(vault, COMPLIANCE, "uk", held=held)
            assert verdict.good, verdict


async def test_a_log_that_is_kept_for_ever_is_not_trimmed(
    aged: tuple[Vault, list[str]], pool: asyncpg.Pool
) -> None:
    """Policy says how long; "for ever" is a word, not a number."""
    vault, _ = aged
    assert await trim_log(replace(vault, log_policy={"uk": None}), "uk") == 0
    assert await trim_log(replace(vault, log_policy={"uk": timedelta(days=9 * 366)}), "uk") == 0
    assert await bodies(pool, 256) == 256


ROW = '[[rows]]\nregions = {}\nkeep = "{}"\ncitation = "x"\n'
ALL = '["uk", "us", "nz", "au", "sg", "hk"]'


def test_the_policy_has_a_floor() -> None:
    """No row is shorter than the floor, ambiguous, unsourced, missing or there twice."""
    assert parse_log_policy(ROW.format(ALL, "for ever"))["hk"] is None
    assert parse_log_policy(ROW.format(ALL, f"P{FLOOR.days}D"))["uk"] == FLOOR
    for wrong in (
        "",
        "rows = 1",
        ROW.format(ALL, f"P{FLOOR.days - 1}D"),
        ROW.format(ALL, "0"),
        ROW.format(ALL, "7 years"),
        ROW.format('["uk"]', "for ever"),
        ROW.format('["xx"]', "for ever"),
        ROW.format(ALL, "for ever") + ROW.format('["uk"]', "for ever"),
        ROW.format(ALL, "for ever").replace('"x"', '" "'),
        ROW.format(ALL, "for ever") + "other = 1\n",
    ):
        with pytest.raises((ConfigurationError, TypeError)):
            parse_log_policy(wrong)


def test_the_shipped_policy_is_whole() -> None:
    """Every region has its row, with its source."""
    text = (Path(__file__).parents[2] / "vault/policy/log.toml").read_text()
    assert all(keep is None or keep >= FLOOR for keep in parse_log_policy(text).values())
