"""The programs of PostgreSQL: those of the wheel where it is installed, else those on the path."""

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from vault.adapters.postgres_cluster import program_path
from vault.errors import ConfigurationError, VaultError


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
