"""
PostgreSQL from the PyPI wheel, run as a child of the vault on `<home>/postgres`.

Promises: one server per home; no network, a Unix socket that only its owner and root may use;
checksums and fsync on; it ends when the process that started it ends, however that ends; what a
crash leaves is cleared by the next start. It does not back up or upgrade anything; for files,
accounts and root see `postgres_cluster`. Start it from the main thread: the kernel ties the
server's life to the thread that started it.
"""

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from keys.ground.postgres import AWAY
from vault.adapters.postgres.cluster import NAME, Cluster, ended, program_path
from vault.errors import ConfigurationError, DatabaseUnavailableError
from vault.sql.session import SERVICE_ROLE, let_in

# ---- One process at a time serves a home: an flock that the kernel lets go of when the holder
# dies.
#
# The file names the holder for people; the lock itself is what counts. It says nothing across
# machines, and a network file system may not keep it.


class HomeLock:
    """`<home>/lock`, and the shared lock of those who use what the holder runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._served: int | None = None
        self._used: int | None = None

    def holder(self) -> int | None:
        """Return the pid that the file names; None when it names nobody."""
        try:
            return int((self._home / "lock").read_text())
        except (OSError, ValueError):
            return None

    def acquire(self) -> None:
        """Become the one who serves; raises `ConfigurationError` that names who does already."""
        if not self.try_acquire():
            raise ConfigurationError(
                f"{self._home} is already served by process {self.holder() or 'unknown'}; "
                "stop that one, or give this one its own PORTVAULT_HOME"
            )

    def try_acquire(self) -> bool:
        """Become the one who serves unless somebody is."""
        descriptor = _open(self._home / "lock")
        if not _lock(descriptor, fcntl.LOCK_EX):
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._served = descriptor
        return True

    def try_use(self, *, alone: bool = False) -> bool:
        """Mark what the holder runs as in use; `alone` is for the holder who wants to stop it."""
        descriptor = _open(self._home / "lock.used")
        if not _lock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            return False
        self._used = descriptor
        return True

    def release(self) -> None:
        """Let go of both."""
        if self._served is not None:
            os.ftruncate(self._served, 0)
            os.close(self._served)
        self.release_use()
        self._served = None

    def release_use(self) -> None:
        """Say that this process no longer uses it."""
        if self._used is not None:
            os.close(self._used)
        self._used = None


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be opened ({error.strerror}); run as the owner of {path.parent}, "
            "or set PORTVAULT_HOME to a directory of your own"
        ) from error


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


# ---- Embedded. ----------------------------------------------------------------------------------

START_SECONDS, STOP_SECONDS, ATTACH_SECONDS = 60.0, 30.0, 15.0
#: How often the one who runs the server looks whether somebody asked it to end.
LOOK_SECONDS = 1.0
SHUTDOWNS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # fast, immediate, by force

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "wal_level": "replica",
    # Whatever was set in the database: an answer is a promise.
    "fsync": "on",
    "full_page_writes": "on",
    # Shared memory of no name in the file system, where the server has none of its own.
    "dynamic_shared_memory_type": "sysv",
    "timezone": "UTC",
    # The server's log carries no row's content: neither statements nor the values in a DETAIL.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}

log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """The server of one home; `durable=False` is for tests, which make many."""

    def __init__(self, home: Path, *, durable: bool = True, archive: Path | None = None) -> None:
        self._cluster = Cluster(home, durable=durable, archive=archive)
        self._lock = HomeLock(self._cluster.home)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    @property
    def dsn(self) -> str:
        """The owner's address, for asyncpg and for PostgreSQL's programs; holds no secret."""
        return self._cluster.address(NAME)

    def bin(self, name: str) -> Path:
        """Return the path of a program, such as `pg_dump`."""
        return program_path(name)

    async def start(self) -> str:
        """
        Start the server, on first use with new data; returns its address.

        Raises `ConfigurationError` when another process serves this home.
        """
        self._lock.acquire()
        await self._start_locked()
        return self.dsn

    async def stop(self) -> None:
        """Shut down fast, by force when that takes too long, and let go of the home."""
        self._stopping = True
        try:
            for number in SHUTDOWNS:
                if self._process is None or self._process.poll() is not None:
                    break
                self._process.send_signal(number)
                await ended(self._process, STOP_SECONDS)
            if self._process is not None:
                self._cluster.forget_sockets()
        finally:
            self._lock.release()

    async def start_or_attach(self) -> None:
        """Start the server unless another process serves this home, else use that one's."""
        deadline = time.monotonic() + ATTACH_SECONDS
        while not self._lock.try_acquire():
            if self._lock.try_use():
                if await self._reachable():
                    return
                self._lock.release()
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"process {self._lock.holder() or 'unknown'} serves {self._cluster.home}, but "
                    "its database does not answer; stop that process and try again"
                )
            await asyncio.sleep(0.1)
        await self._start_locked()

    async def leave(self) -> None:
        """Undo `start_or_attach`; who runs the server first waits for those attached to it."""
        # Another process's lock wakes nobody: it has to be asked again.
        while self._process is not None and not self._lock.try_use(alone=True):  # noqa: ASYNC110 - a lock wakes nobody
            await asyncio.sleep(0.1)
        await self.stop()

    async def wait_for_death(self) -> None:
        """Return when the server is gone, whether by `stop` or on its own."""
        if self._process is not None:
            await ended(self._process, None)

    async def supervise(self) -> None:
        """Start the server again whenever it dies, or is asked to; returns after `stop`."""
        while self._process is not None:
            while not await ended(self._process, LOOK_SECONDS):
                await self._hurry()
            if self._stopping:
                return
            log.error("the embedded PostgreSQL died; starting it again")
            try:
                await self._launch()
            except (ConfigurationError, DatabaseUnavailableError) as error:
                log.error("the embedded PostgreSQL did not come back: %s", error)
                await asyncio.sleep(1)

    async def _hurry(self) -> None:
        """End at once a server that somebody asked to end (SIGTERM): it lets nobody in any more."""
        # It reads a file, which nothing does on the loop.
        was_asked = await asyncio.to_thread(self._cluster.is_stopping)
        if was_asked and not self._stopping and self._process is not None:
            log.warning("the embedded PostgreSQL was asked to end; it is ended and started again")
            self._process.send_signal(signal.SIGINT)

    async def _start_locked(self) -> None:
        self._stopping = False
        try:
            await self._cluster.prepare()
            await self._launch()
        except OSError as error:
            await self.stop()
            raise ConfigurationError(
                f"{self._cluster.home} cannot hold a database: {error}; run as its owner, "
                "or set PORTVAULT_HOME to a directory of your own"
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def _launch(self) -> None:
        await self._end_leftover()
        settings = {**SETTINGS, "unix_socket_directories": str(self._cluster.socket_directory())}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + START_SECONDS
        while not self._stopping:
            process = self._cluster.spawn("postgres", "-D", str(self._cluster.data), *options)
            self._process = process
            if await self._answers(process, deadline) or self._stopping:
                return
            # Orphans of a killed postmaster hold its memory until they notice, within moments.
            why = self._cluster.complaint()
            if "shared memory" not in why or time.monotonic() > deadline:
                raise DatabaseUnavailableError(f"PostgreSQL does not start: {why}")
            await asyncio.sleep(0.2)

    async def _answers(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                await self._ensure_database()
            except AWAY:
                await asyncio.sleep(0.02)
            else:
                return True
        return False

    async def _reachable(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn, timeout=5)
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    async def _ensure_database(self) -> None:
        try:
            connection = await asyncpg.connect(self.dsn, timeout=5)
        except asyncpg.InvalidCatalogNameError:
            connection = await asyncpg.connect(self._cluster.address("postgres"), timeout=5)
            await connection.execute(f"create database {NAME}")
        try:
            # A standby has it from its primary.
            if not await connection.fetchval("select pg_is_in_recovery()"):
                await let_in(connection)
        finally:
            await connection.close()

    async def _end_leftover(self) -> None:
        """End the server of a vault that was killed; drop a pid file whose pid was used again."""
        for number in SHUTDOWNS:
            pid = self._leftover()
            if pid is None:
                return
            os.kill(pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while self._leftover() == pid:
                await asyncio.sleep(0.05)
                if time.monotonic() > deadline:
                    break

    def _leftover(self) -> int | None:
        """Return the pid of a server on our data that is not our child; we hold the lock."""
        pid_file = self._cluster.data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n")[0])
            program = Path(f"/proc/{pid}/comm").read_text().strip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            owner = Path(f"/proc/{pid}").stat().st_uid
        except (OSError, ValueError):
            return None
        if state == "Z":
            return None
        try:
            place = Path(f"/proc/{pid}/cwd").readlink()
        except OSError:
            # Containers hide it from root; then the name and the owner have to do.
            place = self._cluster.data.resolve()
        ours = place == self._cluster.data.resolve() and owner == self._cluster.account.pw_uid
        if program == "postgres" and ours:
            return pid
        pid_file.unlink(missing_ok=True)
        return None


def service_address(home: Path) -> str:
    """Return the address that the service of a home logs in at: an account that owns nothing."""
    return Cluster(home, durable=True).address(NAME, SERVICE_ROLE)


@asynccontextmanager
async def embedded_database(home: Path) -> AsyncIterator[str]:
    """
    Yield the address of the home's database, for a command that comes and goes.

    Attaches to the server when some process runs it, and runs it otherwise; then it waits, before
    it stops the server, for others that attached meanwhile.
    """
    server = EmbeddedPostgres(home)
    await server.start_or_attach()
    supervisor = asyncio.create_task(server.supervise())
    try:
        yield server.dsn
    finally:
        await server.leave()
        await supervisor
