"""
PostgreSQL of each major version that is claimed: 15 to 17 from npm, 18 the embedded wheel's.

Each server is one as an operator has it: the database's owner is no superuser, and the vault logs
in with an account that owns nothing. Whoever reaches the socket is let in without a password.
"""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from vault.adapters.postgres import launcher as postgres_launcher
from vault.adapters.postgres.cluster import program_path
from vault.sql.session import SERVICE_ROLE

ROOT = Path(__file__).parents[1]
VERSIONS = (15, 16, 17, 18)
OWNER, LOGIN, DATABASE = "harbour_owner", "harbour_vault", "harbour"
START_TRIES = 600


@dataclass(frozen=True)
class Server:
    """A running server; `socket` is the directory of its socket."""

    version: int
    socket: Path

    def address(self, account: str, database: str = DATABASE) -> str:
        """Return the address of a database for an account."""
        return f"postgresql://{account}@/{database}?host={self.socket}"

    @property
    def owner(self) -> str:
        """The address for who migrates, dumps and restores."""
        return self.address(OWNER)

    @property
    def login(self) -> str:
        """The address for who serves."""
        return self.address(LOGIN)

    async def superuser(self, *statements: str, database: str = "postgres") -> None:
        """Execute statements as the superuser, one by one."""
        conn = await asyncpg.connect(self.address("postgres", database))
        try:
            for statement in statements:
                await conn.execute(statement)
        finally:
            await conn.close()


def programs(version: int) -> Path:
    """Return where the programs of a version are; they are installed where they are missing."""
    if version == 18:
        return program_path("postgres").parent
    place = Path(sys.prefix) / "npm" / "postgresql"
    install = "source scripts/setup.sh; set_up_npm tests/postgresql"
    subprocess.run(
        ["bash", "-c", install],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PORTVAULT_VENV": sys.prefix},
    )
    package = place / "node_modules" / f"postgresql-{version}"
    # No package's own script is run: its links, which npm cannot carry, are made here.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        with suppress(FileExistsError):
            (package / link["target"]).symlink_to((package / link["source"]).name)
    return package / "native" / "bin"


def _command(account: pwd.struct_passwd, *program: str) -> list[str]:
    identity = (str(account.pw_uid), str(account.pw_gid), str(os.getpid()))
    return [sys.executable, "-I", "-S", postgres_launcher.__file__, *identity, "null", *program]


@asynccontextmanager
async def server_of(version: int) -> AsyncIterator[Server]:
    """Run a server of a version, with an empty database."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="pv-", dir=memory if memory.is_dir() else None))
    place.chmod(0o755)
    data, socket, log = place / "data", place / "run", place / "log"
    for path in (data, socket):
        path.mkdir(mode=0o700 if path == data else 0o755)
        os.chown(path, account.pw_uid, account.pw_gid)
    there = await asyncio.to_thread(programs, version)
    options = ("-U", "postgres", "--auth=trust", "--no-sync", "--data-checksums", "-E", "UTF8")
    await asyncio.to_thread(
        subprocess.run,
        _command(account, str(there / "initdb"), *options, "--locale=C", "-D", str(data)),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    settings = {"listen_addresses": "", "unix_socket_directories": str(socket)}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            _command(account, str(there / "postgres"), "-D", str(data), *arguments),
            stdout=sink,
            stderr=sink,
        )
    server = Server(version, socket)
    try:
        for _ in range(START_TRIES):
            assert process.poll() is None, log.read_text()
            with suppress(OSError, asyncpg.PostgresError):
                await server.superuser("select 1")
                break
            await asyncio.sleep(0.1)
        yield server
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        shutil.rmtree(place)


async def make_accounts(server: Server) -> None:
    """Make the database, its owner and the account that the vault logs in with."""
    await server.superuser(
        f"create role {OWNER} login createrole",
        f"create role {SERVICE_ROLE} nologin",
        f"create role {LOGIN} login in role {SERVICE_ROLE}",
        f"grant {SERVICE_ROLE} to {OWNER} with admin option",
        f"grant pg_monitor to {SERVICE_ROLE}",
        f"create database {DATABASE} owner {OWNER}",
    )


@pytest.fixture(scope="session")
def wheels_server() -> Iterator[Server]:
    """Run a server of the wheel's version for the session."""
    with asyncio.Runner() as runner:
        running = server_of(18)
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture
async def trusting_server(wheels_server: Server) -> AsyncIterator[Server]:
    """Give a server of the wheel's version that lets everybody in, as it was when it was new."""
    await make_accounts(wheels_server)
    yield wheels_server
    roles = (OWNER, LOGIN, SERVICE_ROLE)
    await wheels_server.superuser(
        "alter system reset all",
        "select pg_reload_conf()",
        f"drop database {DATABASE} with (force)",
        *(f"drop owned by {role} cascade" for role in roles),
        *(f"drop role {role}" for role in reversed(roles)),
    )
