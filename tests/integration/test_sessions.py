"""What a session is, is asked and not believed: poolers, and settings that break a promise."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.access_records import append
from tests.fixtures_postgresql import DATABASE, LOGIN, OWNER, Server
from vault.adapters.committer import GroupRecorder
from vault.app import open_vault
from vault.config.settings import Config
from vault.errors import ConfigurationError, RecordsUnavailableError
from vault.migrate import MigrationError, migrate
from vault.sql.session import REQUIRED, SessionRefusedError, require_own_session, require_session

#: All that the vault's sessions ask for, so that a pooler lets them pass and drops it.
ASKED = (
    "role,search_path,row_security,default_transaction_isolation,idle_session_timeout,"
    "idle_in_transaction_session_timeout,statement_timeout,lock_timeout,enable_seqscan,jit,"
    "extra_float_digits"
)


@asynccontextmanager
async def pooler(server: Server, mode: str) -> AsyncIterator[Callable[[str], str]]:
    """Run PgBouncer before a server; gives the address of an account over it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = Path(tempfile.mkdtemp(prefix="portvault-pooler-"))
    place.chmod(0o755)
    accounts, settings = place / "accounts", place / "pgbouncer.ini"
    accounts.write_text(f'"{OWNER}" ""\n"{LOGIN}" ""\n"postgres" ""\n')
    settings.write_text(
        f"[databases]\n* = host={server.socket}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {accounts}\n"
        f"pool_mode = {mode}\nignore_startup_parameters = {ASKED}\nmax_client_conn = 100\n"
        "default_pool_size = 30\n"
    )
    user = ["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"]
    process = subprocess.Popen(
        [*(user if os.geteuid() == 0 else []), "pgbouncer", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
                await asyncio.sleep(0.05)
        yield lambda account: f"postgresql://{account}@127.0.0.1:{port}/{DATABASE}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(place)


@pytest.fixture
async def settings(tmp_path: Path, trusting_server: Server) -> Config:
    """Give a vault's settings on a database of an operator's own."""
    await migrate(trusting_server.owner)
    return Config(
        home=tmp_path / "home",
        database=trusting_server.login,
        database_owner=trusting_server.owner,
        regions=("uk",),
        record_timeout_seconds=2.0,
        worker=False,
    )


async def test_a_pooler_that_drops_the_role(settings: Config, trusting_server: Server) -> None:
    """Whoever would act as the owner because the role was dropped on the way is refused."""
    async with pooler(trusting_server, "session") as over:
        for account in ("postgres", OWNER, LOGIN):
            with pytest.raises(SessionRefusedError, match="ignore_startup_parameters"):
                async with open_vault(settings, dsn=over(account)):
                    pass
        conn = await asyncpg.connect(over(LOGIN))
        await require_own_session(conn, over(LOGIN))
        await conn.close()


async def test_a_pooler_in_transaction_mode(settings: Config, trusting_server: Server) -> None:
    """Locks and settings of a session mean nothing there: it is refused before the first."""
    async with pooler(trusting_server, "transaction") as over:
        with pytest.raises(SessionRefusedError, match="pool_mode = transaction"):
            await migrate(over(OWNER))
        await trusting_server.superuser(
            *(
                f"alter role {LOGIN} set {name} = '{value}'"
                for name, value in (
                    ("role", "portvault_service"),
                    ("search_path", "public"),
                    ("idle_session_timeout", "600s"),
                )
            )
        )
        for _ in range(3):
            conn = await asyncpg.connect(over(LOGIN), statement_cache_size=0)
            with pytest.raises(SessionRefusedError, match="pool_mode = transaction"):
                await require_own_session(conn, over(LOGIN))
            await conn.close()


BREAKING = (
    f"alter database {DATABASE} set session_replication_role = replica",
    f"alter role {LOGIN} set session_replication_role = replica",
    f"alter role {LOGIN} in database {DATABASE} set session_replication_role = replica",
    f"alter database {DATABASE} set default_transaction_read_only = on",
    f"alter database {DATABASE} set zero_damaged_pages = on",
    f"alter database {DATABASE} set ignore_checksum_failure = on",
    "alter system set fsync = off",
    "alter system set full_page_writes = off",
    "alter system set ignore_system_indexes = on",
)


@pytest.mark.parametrize("statement", BREAKING)
async def test_a_setting_that_breaks_a_promise(
    settings: Config, trusting_server: Server, statement: str
) -> None:
    """Whoever set it, and wherever: a vault does not start on it, and the error names it."""
    async with open_vault(settings, dsn=trusting_server.login) as vault:
        await append(vault, 1)
        await trusting_server.superuser(statement, "select pg_reload_conf()")
        named = next(name for name in REQUIRED if name in statement)
        with pytest.raises(SessionRefusedError, match=named):
            async with open_vault(settings, dsn=trusting_server.login):
                pass
        # One that runs refuses each new session.
        assert isinstance(vault.recorder, GroupRecorder)
        vault.recorder._disconnect()
        with pytest.raises(RecordsUnavailableError):
            await append(vault, 1)


def test_every_setting_that_is_required_is_tried() -> None:
    """A setting that is added to the table gets its case above."""
    assert all(any(name in statement for statement in BREAKING) for name in REQUIRED)


@pytest.mark.parametrize("value, kept", [("off", "on"), ("local", "on"), ("remote_write", "on")])
async def test_a_commit_is_durable_whatever_the_default(
    settings: Config, trusting_server: Server, value: str, kept: str
) -> None:
    """`synchronous_commit` is any session's own: the vault's have it on."""
    await trusting_server.superuser(
        f"alter database {DATABASE} set synchronous_commit = {value}",
        f"alter role {LOGIN} set search_path = pg_temp, public",
        f"alter role {LOGIN} set row_security = off",
        f"alter role {LOGIN} set default_transaction_isolation = serializable",
    )
    async with open_vault(settings, dsn=trusting_server.login) as vault:
        assert await vault.pool.fetchval("show synchronous_commit") == kept
        assert await vault.pool.fetchval("show search_path") == "public, pg_temp"
        assert await vault.pool.fetchval("show row_security") == "on"
        assert await vault.pool.fetchval("show transaction_isolation") == "read committed"
        await append(vault, 1)


async def test_a_session_that_asked_for_more_keeps_it(trusting_server: Server) -> None:
    """`remote_apply` is more than `on`, and stays."""
    await migrate(trusting_server.owner)
    conn = await asyncpg.connect(
        trusting_server.login, server_settings={"synchronous_commit": "remote_apply"}
    )
    await require_session(conn, {})
    assert await conn.fetchval("show synchronous_commit") == "remote_apply"
    await conn.close()


@pytest.mark.parametrize(
    "statement, word",
    [
        ("alter table log_queue set unlogged", "log_queue"),
        ("alter table document enable row level security", "document"),
    ],
)
async def test_a_table_that_loses_or_hides_rows(
    settings: Config, trusting_server: Server, statement: str, word: str
) -> None:
    """An unlogged table is empty after a crash: the vault names it and does not start."""
    await trusting_server.superuser(statement, database=DATABASE)
    with pytest.raises(ConfigurationError, match=f"table {word}"):
        async with open_vault(settings, dsn=trusting_server.login):
            pass


async def test_a_schema_that_waits_is_the_owners(trusting_server: Server) -> None:
    """Who logs in as the service is told who may migrate."""
    with pytest.raises(MigrationError, match="owner"):
        await migrate(trusting_server.login)
