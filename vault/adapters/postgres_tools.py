"""The programs of PostgreSQL: those of the wheel where it is installed, else those on the path."""

import asyncio
import shutil
from pathlib import Path

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


async def run_tool(name: str, *arguments: str) -> None:
    """Run a program to its end; raises `VaultError` with the first line of its complaint."""
    process = await asyncio.create_subprocess_exec(
        tool(name), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
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
