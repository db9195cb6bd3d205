"""What the service may do in its database is less than what its owner may."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.access_records import append, record
from vault.actions.log_publish import sequence_log
from vault.adapters.committer import GroupRecorder
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.migrate import MigrationError, migrate
from vault.sql.log_published import insert_cosignature
from vault.sql.session import ADDED_TO, SERVICE_ROLE

ACCOUNT = "portvault_only_serves"


async def _execute(pool: asyncpg.Pool, *statements: str) -> None:
    for statement in statements:
        await pool.execute(statement)


@asynccontextmanager
async def let_in(pool: asyncpg.Pool, *roles: str) -> AsyncIterator[None]:
    """Make an account that is let in, and may act in the roles."""
    rules = Path(await pool.fetchval("show hba_file"))
    kept = rules.read_text()
    drop = f"drop role if exists {ACCOUNT}"
    await _execute(pool, drop, f"create role {ACCOUNT} login")
    for role in roles:
        await pool.execute(f"grant {role} to {ACCOUNT}")
    try:
        rules.write_text(f"local all {ACCOUNT} trust\n{kept}")
        await pool.execute("select pg_reload_conf()")
        yield
    finally:
        rules.write_text(kept)
        await _execute(pool, "select pg_reload_conf()", drop)


def of_account(address: str) -> str:
    """Return a database's address for the account."""
    assert "//portvault@" in address
    return address.replace("//portvault@", f"//{ACCOUNT}@")


async def test_the_vault_acts_as_the_service(vault: Vault) -> None:
    """Every connection of the vault is in the service's role, whoever's account it came with."""
    async with vault.pool.acquire() as conn:
        assert await conn.fetchval("select current_user") == SERVICE_ROLE
    await append(vault, 1)
    rows = await vault.pool.fetch(
        "select usename, application_name from pg_stat_activity where datname = current_database()"
    )
    assert "portvault-recorder" in {row["application_name"] for row in rows}
    recorder = vault.recorder
    assert isinstance(recorder, GroupRecorder)
    mine = await recorder._connect()
    assert await mine.fetchval("select current_user") == SERVICE_ROLE


@pytest.mark.parametrize("table", ADDED_TO)
async def test_to_the_log_the_service_can_only_add(vault: Vault, table: str) -> None:
    """Insert and select are granted; update, delete, truncate and everything of an owner is not."""
    await append(vault, 2)
    await sequence_log(vault, "uk")
    async with vault.pool.acquire() as conn:
        await insert_cosignature(conn, "uk", 2, "w", "— w x\n", vault.clock())
    assert await vault.pool.fetchval(f"select count(*) from {table}") > 0
    for statement in (
        f"update {table} set region = 'sg'",
        f"delete from {table}",
        f"truncate {table}",
        f"alter table {table} disable trigger all",
        f"drop table {table}",
        "set session_replication_role = replica",
        f"create rule r as on insert to {table} do instead nothing",
        "create table other ()",
        "update migration set sha256 = ''",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await vault.pool.execute(statement)


async def test_no_foreign_key_deletes_a_record(pool: asyncpg.Pool) -> None:
    """Nothing that is deleted elsewhere takes a record, a place or a checkpoint along."""
    cascading = await pool.fetchval(
        """
        select count(*) from pg_constraint
        where contype = 'f' and conrelid = any($1::text[]::regclass[]) and confdeltype <> 'a'
        """,
        list(ADDED_TO),
    )
    assert cascading == 0


async def test_an_account_that_only_serves_is_enough(config: Config, pool: asyncpg.Pool) -> None:
    """A vault serves with an account that owns nothing, and cannot become the owner."""
    address = of_account(config.database)
    async with let_in(pool, SERVICE_ROLE), open_vault(config, dsn=address) as vault:
        await append(vault, 3)
        assert await sequence_log(vault, "uk") == 3
        for statement in ("set role portvault", "reset role; delete from access_record"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await vault.pool.execute(statement)
        assert await migrate(address) == []


async def test_who_only_serves_does_not_migrate(empty_database: str, pool: asyncpg.Pool) -> None:
    """A schema that waits for migrations is left alone, and the refusal says who may."""
    async with let_in(pool, SERVICE_ROLE):
        with pytest.raises(MigrationError, match="owner"):
            await migrate(of_account(empty_database))


async def test_without_the_role_nobody_is_let_in(config: Config, pool: asyncpg.Pool) -> None:
    """An account that may not act as the service cannot even open the vault."""
    async with let_in(pool):
        with pytest.raises(asyncpg.PostgresError, match="role"):
            async with open_vault(config, dsn=of_account(config.database)):
                pass


async def test_whatever_puts_a_record_in_queues_it(pool: asyncpg.Pool) -> None:
    """That a record waits for its place is the table's promise, not the caller's."""
    made = record()
    await pool.execute(
        "insert into access_record (id, region, at, phase, principal, role, action)"
        " values ($1, 'uk', $2, 'intent', 'p', 'r', 'a')",
        made.id,
        made.at,
    )
    assert await pool.fetchval("select record from log_queue") == made.id
