"""The embedded PostgreSQL: who may use it, and that it survives whatever ends it."""

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from keys.ground.postgres import AWAY
from vault.adapters.postgres import launcher as postgres_launcher
from vault.adapters.postgres.embedded import EmbeddedPostgres, embedded_database
from vault.errors import ConfigurationError, DatabaseUnavailableError

ROOT = Path(__file__).parents[2]
SERVE = """
import asyncio, sys
from pathlib import Path
from vault.adapters.postgres.embedded import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
    await server.start()
    print(server._process.pid, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
asyncio.run(main())
"""


async def execute(address, *statements):
    connection = await asyncpg.connect(address)
    try:
        return [await connection.fetchval(statement) for statement in statements][-1]
    finally:
        await connection.close()


def serve_elsewhere(home, *prefix):
    """Start another process that serves `home`; gives it and the pid of its server."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", SERVE, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def close(process):
    process.stdin.close()
    status = process.wait()
    process.stdout.close()
    return status


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def server(tmp_path):
    return EmbeddedPostgres(tmp_path / "home", durable=False)


async def test_rows_are_there_after_a_stop_and_a_start(server):
    """What was written is read after the server was stopped and started again."""
    address = await server.start()
    await execute(address, "create table kept as select 7 as number")
    await server.stop()
    assert await server.start() == address
    assert await execute(address, "select number from kept") == 7
    await server.stop()


async def test_settings_are_the_promised_ones(tmp_path):
    """It is durable, checksummed, in UTF-8 and on no network unless a test asks for less."""
    server = EmbeddedPostgres(tmp_path)
    async with asyncio.timeout(None):
        address = await server.start()
    promised = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "listen_addresses": "",
        "wal_level": "replica",
        "max_connections": "100",
        "unix_socket_permissions": "0700",
    }
    for name, value in promised.items():
        assert await execute(address, f"show {name}") == value
    await server.stop()


async def test_directories_are_private(server, tmp_path):
    """Nobody but the owner may look into the data or reach the socket."""
    await server.start()
    base = tmp_path / "home" / "postgres"
    for path in (base, base / "data", base / "run"):
        assert path.stat().st_mode & 0o077 == 0
    assert (base / "log").stat().st_mode & 0o077 == 0
    await server.stop()


async def test_log_and_environment_carry_nothing_of_ours(server, tmp_path, monkeypatch):
    """The server's log keeps no values of rows, and its environment none of our secrets."""
    monkeypatch.setenv("PORTVAULT_S3_SECRET_KEY", "hush-hush")
    address = await server.start()
    await execute(address, "create table person (name text primary key)")
    await execute(address, "insert into person values ('Ada Lovelace')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(address, "insert into person values ('Ada Lovelace')")
    environment = Path(f"/proc/{server._process.pid}/environ").read_bytes()
    await server.stop()
    text = (tmp_path / "home" / "postgres" / "log").read_text()
    assert "unique constraint" in text
    assert "Lovelace" not in text
    assert b"hush" not in environment


async def test_programs_of_the_wheel_reach_the_server(server):
    """pg_dump takes the same address as asyncpg."""
    address = await server.start()
    await execute(address, "create table visible ()")
    dump = await asyncio.to_thread(
        subprocess.run, [server.bin("pg_dump"), address], capture_output=True, text=True, check=True
    )
    await server.stop()
    assert "CREATE TABLE public.visible" in dump.stdout


async def test_wal_is_archived_and_replayed_without_a_shell(server, tmp_path):
    """A base backup and what `pg_receivewal` kept are the whole database, as operations.md says."""
    address = await server.start()
    archive, base = tmp_path / "wal", tmp_path / "base"
    archive.mkdir()
    receiving = [server.bin("pg_receivewal"), f"--directory={archive}", "--slot=archive"]
    slot = [f"--dbname={address}", "--create-slot", "--if-not-exists"]
    subprocess.run([*receiving, *slot], check=True)
    receiver = subprocess.Popen([*receiving, f"--dbname={address}", "--synchronous"])
    try:
        copy = [server.bin("pg_basebackup"), f"--dbname={address}", f"--pgdata={base}"]
        copy += ["--wal-method=none", "--checkpoint=fast"]
        await asyncio.to_thread(subprocess.run, copy, check=True, capture_output=True)
        await execute(address, "create table kept as select 7 as number")
        written = await execute(address, "select pg_walfile_name(pg_current_wal_insert_lsn())")
        await execute(address, "select pg_switch_wal()")
        while not (archive / written).exists():
            await asyncio.sleep(0.05)
    finally:
        receiver.terminate()
        receiver.wait()
        await server.stop()
    home = tmp_path / "recovered"
    data = home / "postgres" / "data"
    shutil.copytree(base, data)
    for segment in archive.iterdir():
        shutil.copy(segment, data / "pg_wal" / segment.name.removesuffix(".partial"))
    recovered = EmbeddedPostgres(home, durable=False)
    address = await recovered.start()
    assert await execute(address, "select number from kept") == 7
    await recovered.stop()


async def test_supervised_server_comes_back_after_kill(server):
    """A server killed together with its children is started again and has lost nothing."""
    address = await server.start()
    await execute(address, "create table kept as select 7 as number")
    supervisor = asyncio.create_task(server.supervise())
    killed = server._process.pid
    children = Path(f"/proc/{killed}/task/{killed}/children").read_text().split()
    for pid in (killed, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    while server._process.pid == killed:
        await asyncio.sleep(0.02)
    number = None
    while number is None:
        try:
            number = await execute(address, "select number from kept")
        except AWAY:
            await asyncio.sleep(0.02)
    assert number == 7
    await server.stop()
    await supervisor


async def test_killed_owner_takes_its_server_along_and_blocks_nobody(tmp_path):
    """After `kill -9` of who serves, the server ends by itself and the next start succeeds."""
    other, pid = serve_elsewhere(tmp_path)
    server = EmbeddedPostgres(tmp_path, durable=False)
    await execute(server.dsn, "create table kept as select 7 as number")
    other.kill()
    other.wait()
    address = await server.start()
    assert not running(pid)
    assert await execute(address, "select number from kept") == 7
    await server.stop()
    close(other)


async def test_leftover_server_is_ended_by_the_next_start(server, tmp_path):
    """A server that nobody serves any more is shut down before a new one starts."""
    await server.start()
    server._lock.release()
    successor = EmbeddedPostgres(tmp_path / "home", durable=False)
    address = await successor.start()
    assert server._process.poll() is not None
    assert await execute(address, "select 1") == 1
    await successor.stop()


async def test_pid_file_whose_pid_is_something_else_does_not_block(server, tmp_path):
    """After a reboot the pid of the dead server may belong to an innocent process."""
    await server.start()
    pid_file = tmp_path / "home" / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server._process.kill()
    await server.wait_for_death()
    await server.stop()
    innocent = subprocess.Popen(["sleep", "1000"])
    pid_file.write_text("\n".join([str(innocent.pid), *lines[1:]]) + "\n")
    assert await execute(await server.start(), "select 1") == 1
    await server.stop()
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


async def test_second_server_of_a_home_is_told_who_holds_it(tmp_path):
    """The refusal names the home, the pid of the holder and what to do."""
    other, _ = serve_elsewhere(tmp_path)
    with pytest.raises(ConfigurationError) as refusal:
        await EmbeddedPostgres(tmp_path).start()
    for word in (str(tmp_path), str(other.pid), "PORTVAULT_HOME"):
        assert word in str(refusal.value)
    assert close(other) == 0


async def test_command_attaches_to_the_server_that_runs(tmp_path):
    """A command beside `serve` uses its server and leaves it running."""
    other, pid = serve_elsewhere(tmp_path)
    async with embedded_database(tmp_path) as address:
        assert await execute(address, "select 1") == 1
    assert running(pid)
    assert close(other) == 0
    assert not running(pid)


async def test_command_runs_the_server_when_nobody_does(tmp_path):
    """A command on its own starts the server and stops it afterwards."""
    async with embedded_database(tmp_path) as address:
        assert await execute(address, "select 1") == 1
    with pytest.raises(OSError, match="socket|directory"):
        await execute(address, "select 1")
    assert not (tmp_path / "postgres" / "data" / "postmaster.pid").exists()


async def test_command_that_runs_the_server_waits_for_those_attached(tmp_path):
    """Of two commands the one that ends first does not pull the database from under the other."""
    attached, ended = asyncio.Event(), asyncio.Event()

    async def first():
        async with embedded_database(tmp_path):
            await attached.wait()
        ended.set()

    async def second():
        while not (tmp_path / "lock").exists():
            await asyncio.sleep(0.01)
        async with embedded_database(tmp_path) as address:
            attached.set()
            await asyncio.sleep(0.3)
            assert await execute(address, "select 1") == 1
            assert not ended.is_set()

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        group.create_task(second())
    assert ended.is_set()


@pytest.mark.parametrize("name", ["x" * 120, "a, b & 'c' é"])
async def test_home_may_be_long_or_odd(tmp_path, name):
    """A path too long for a socket, or with any character, is a home like another."""
    home = tmp_path / name
    server = EmbeddedPostgres(home, durable=False)
    address = await server.start()
    assert await execute(address, "select 1") == 1
    await server.stop()
    assert not socket_directory(home).exists()


def socket_directory(home):
    return Path("/tmp/portvault-" + hashlib.sha256(os.fsencode(home)).hexdigest()[:16])


async def test_socket_directory_made_by_somebody_else_is_refused(tmp_path):
    """Who makes the directory under /tmp first does not get to answer for the database."""
    home = tmp_path / ("x" * 120)
    squatted = socket_directory(home)
    squatted.mkdir(mode=0o777)
    squatted.chmod(0o777)
    with pytest.raises(ConfigurationError, match=squatted.name):
        await EmbeddedPostgres(home, durable=False).start()
    squatted.rmdir()
    squatted.symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match=squatted.name):
        await EmbeddedPostgres(home, durable=False).start()
    squatted.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("name", ["home", "h" * 120])
async def test_ordinary_user_runs_it_as_itself(tmp_path, name):
    """Without root the server runs as the user, who alone may come in besides root."""
    nobody = pwd.getpwnam("nobody")
    home = tmp_path / name
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    identity = (str(nobody.pw_uid), str(nobody.pw_gid), str(os.getpid()))
    other, pid = serve_elsewhere(
        home, sys.executable, "-I", "-S", postgres_launcher.__file__, *identity, "null"
    )
    assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
    assert (home / "postgres" / "data").stat().st_uid == nobody.pw_uid
    async with embedded_database(home) as address:
        await execute(address, "create table kept as select 7 as number")
    assert close(other) == 0
    # And root may take the same home over.
    async with embedded_database(home) as address:
        assert await execute(address, "select number from kept") == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is anybody else")
async def test_server_of_root_has_no_root_and_lets_only_root_in(server):
    """Started by root it runs as another account, and even that account may not log in."""
    address = await server.start()
    owner = Path(f"/proc/{server._process.pid}").stat().st_uid
    assert owner != 0
    account = pwd.getpwuid(owner)
    identity = (str(account.pw_uid), str(account.pw_gid), str(os.getpid()))
    launcher = [sys.executable, "-I", "-S", postgres_launcher.__file__, *identity, "null"]
    attempt = await asyncio.to_thread(
        subprocess.run,
        [*launcher, server.bin("psql"), address, "-c", "select 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert attempt.returncode == 2
    assert "Peer authentication failed" in attempt.stderr
    await server.stop()


async def test_damaged_data_is_reported_and_the_home_let_go(server, tmp_path):
    """When the server cannot start, the error says where to read more and the lock is free."""
    await server.start()
    await server.stop()
    (tmp_path / "home" / "postgres" / "data" / "global" / "pg_control").unlink()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match=r"pg_control.*log"):
            await server.start()


async def test_data_of_another_major_version_is_refused(server, tmp_path):
    """Data that another PostgreSQL made is not touched, and the way out is named."""
    await server.start()
    await server.stop()
    version = tmp_path / "home" / "postgres" / "data" / "PG_VERSION"
    version.write_text("15\n")
    with pytest.raises(ConfigurationError, match="pg_dump 15"):
        await server.start()


async def test_interrupted_creation_is_begun_again(server, tmp_path):
    """A crash in the middle of the first start leaves a staging directory that does not matter."""
    staging = tmp_path / "home" / "postgres" / "data.new"
    staging.mkdir(parents=True)
    (staging / "PG_VERSION").write_text("18\n")
    assert await execute(await server.start(), "select 1") == 1
    await server.stop()
    assert not staging.exists()


async def test_home_that_is_a_file_is_a_configuration_error(tmp_path):
    """A home that cannot be a directory is named in the error."""
    (tmp_path / "home").write_text("")
    with pytest.raises(ConfigurationError, match="PORTVAULT_HOME"):
        await EmbeddedPostgres(tmp_path / "home").start()


async def test_first_start_takes_moments(tmp_path):
    """The first start, which makes the cluster, is a matter of a second or so; it is printed."""
    server = EmbeddedPostgres(tmp_path)
    begun = time.monotonic()
    await server.start()
    print(f"first start: {time.monotonic() - begun:.2f} s")
    await server.stop()
