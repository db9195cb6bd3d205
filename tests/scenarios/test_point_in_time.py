"""The commands of the page for operators recover an embedded database to a point in time."""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.fixtures_postgres import memory
from vault.adapters.postgres.cluster import tool
from vault.adapters.postgres.embedded import EmbeddedPostgres

PAGE = Path(__file__).parents[2] / "docs/operations.md"
BIN = Path(tool("pg_basebackup")).parent


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that the account of the server may reach."""
    made = Path(tempfile.mkdtemp(prefix="portvault-", dir=memory()))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def commands(word: str, place: Path) -> str:
    """Return the page's commands that hold a word, for a backup below `place`."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", PAGE.read_text())
    (found,) = [block for block in blocks if word in block]
    return str(found).replace("/backup/", f"{place}/")


@pytest.fixture
def closed(place: Path) -> Path:
    """Return the programs of PostgreSQL below a directory that is root's own, as `/root` is."""
    package, below = BIN.parents[1], place / "closed"
    for name in (package, package.with_suffix(".libs")):
        shutil.copytree(name, below / name.name, symlinks=True)
    below.chmod(0o700)
    return below / BIN.relative_to(package.parent)


async def test_a_database_is_recovered_to_a_point_in_time(place: Path, closed: Path) -> None:
    """What was committed before the point is there, what came after it is not."""
    home, new = place / "home", place / "new"
    (place / "wal").mkdir()
    server = EmbeddedPostgres(home, durable=False)
    conn = await asyncpg.connect(await server.start())
    await conn.execute("create table kept as select 1 as item")
    address = f"postgresql://portvault@/postgres?host={home}/postgres/run"
    given = f"set -e\nbin={BIN}\naddress='{address}'\n"
    lines = commands("pg_basebackup", place).splitlines()
    create, receive, base = [line for line in lines if line.startswith("$bin/")]
    await asyncio.to_thread(subprocess.run, ["bash", "-c", given + create], check=True)
    receiver = subprocess.Popen(["bash", "-c", given + "exec " + receive.partition(" &")[0]])
    await asyncio.to_thread(subprocess.run, ["bash", "-c", given + base], check=True)
    await conn.execute("insert into kept values (2)")
    await asyncio.sleep(0.1)
    point = await conn.fetchval("select clock_timestamp()::text")
    await asyncio.sleep(0.1)
    await conn.execute("insert into kept values (3)")
    await asyncio.sleep(0.5)
    await conn.close()
    receiver.terminate()
    await asyncio.to_thread(receiver.wait)
    await server.stop()
    account = (home / "postgres" / "data").stat().st_uid
    shutil.rmtree(home)
    new.mkdir(mode=0o755)
    subprocess.run(["chmod", "-R", "a+rX", place / "wal"], check=True)
    given = f"set -e\nbin={closed}\npoint='{point}'\naccount={account}\nPORTVAULT_HOME={new}\n"
    recover = given + commands("recovery_target_time", place)
    await asyncio.to_thread(subprocess.run, ["bash", "-c", recover], check=True)
    server = EmbeddedPostgres(new, durable=False)
    conn = await asyncpg.connect(await server.start())
    try:
        assert [row["item"] for row in await conn.fetch("select item from kept")] == [1, 2]
    finally:
        await conn.close()
        await server.stop()
