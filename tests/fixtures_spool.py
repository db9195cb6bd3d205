"""HylaFAX's own scripts from Debian, in a spool of the test's: real hook, real files, no modem."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import vault as package
from tests.fixtures_postfix import free_port
from tests.fixtures_process import VaultProcess

SCRIPTS, SETTINGS = Path("/var/spool/hylafax/bin"), Path("/etc/hylafax")
HOOK = Path(package.__file__).parent / "hylafax" / "FaxDispatch"


@dataclass
class HylaFax:
    """A spool with `bin/faxrcvd` and `etc/FaxDispatch`."""

    spool: Path

    def receive(self, data: bytes, name: str = "fax00001.tif") -> Path:
        """Put a fax where HylaFAX puts what it received."""
        path = self.spool / "recvq" / name
        path.write_bytes(data)
        return path

    async def faxrcvd(
        self, vault: VaultProcess, token: str, path: Path, *callids: str, commid: str = "000000007"
    ) -> tuple[int, str]:
        """Run HylaFAX's own script on a file, as its server does; return status and output."""
        secret = self.spool / "portvault.token"
        secret.touch(0o600)
        secret.write_text(token)
        process = await asyncio.create_subprocess_exec(
            "bin/faxrcvd",
            f"recvq/{path.name}",
            "ttyS0",
            commid,
            "",
            *callids,
            cwd=self.spool,
            env={
                **os.environ,
                "PORTVAULT": str(Path(sys.executable).with_name("portvault")),
                "PORTVAULT_SERVER": vault.url,
                "PORTVAULT_TOKEN_FILE": str(secret),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()


@dataclass
class FaxServer:
    """HylaFAX's scheduler and protocol server, which have no modem to send with."""

    spool: Path
    port: int

    def jobs(self) -> list[dict[str, str]]:
        """Return the jobs that wait to be sent, as their queue files say."""
        found = []
        for path in sorted((self.spool / "sendq").glob("q*")):
            lines = [line.partition(":") for line in path.read_text().splitlines()]
            found.append({name: value for name, _, value in lines})
        return found


@pytest.fixture
def fax_server() -> Iterator[FaxServer]:
    """Run faxq and hfaxd on a spool of their own."""
    if os.geteuid() != 0:
        pytest.skip("HylaFAX starts as root only")
    # Not under pytest's directory, which other accounts may not enter.
    home = Path(tempfile.mkdtemp(prefix="hylafax-"))
    home.chmod(0o755)
    spool, port = home / "spool", free_port()
    subprocess.run(["cp", "-a", str(SCRIPTS.parent), str(spool)], check=True)
    subprocess.run(["cp", "-a", f"{SETTINGS}/.", str(spool / "etc")], check=True)
    processes = []
    try:
        for command in (["faxq", "-D"], ["hfaxd", "-d", "-i", str(port)]):
            name = f"/usr/sbin/{command[0]}"
            processes.append(subprocess.Popen([name, "-q", str(spool), *command[1:]]))
        for _ in range(200):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0 and (spool / "FIFO").exists():
                    break
            time.sleep(0.05)
        yield FaxServer(spool, port)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def hylafax(tmp_path: Path) -> HylaFax:
    """Set a spool up with Debian's scripts and settings, and our hook."""
    spool = tmp_path / "hylafax"
    for name in ("recvq", "tmp", "status", "info", "log"):
        (spool / name).mkdir(parents=True)
    shutil.copytree(SCRIPTS, spool / "bin")
    shutil.copytree(SETTINGS, spool / "etc", symlinks=True)
    shutil.copy(HOOK, spool / "etc" / "FaxDispatch")
    settings = (spool / "etc" / "setup.cache").read_text()
    # FaxMaster's mail goes nowhere: what is tested is the hook.
    (spool / "etc" / "setup.cache").write_text(settings + "\nSENDMAIL=/bin/true\n")
    return HylaFax(spool)
