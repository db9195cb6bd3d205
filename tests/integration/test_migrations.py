"""Migrations: each once, in order, and never edited afterwards."""

import asyncio
import shutil
import uuid
from pathlib import Path

import asyncpg
import pytest

from vault.migrate import MigrationError, migrate, pending

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a copy of the migrations."""
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


async def test_two_at_once_apply_each_once(empty_database: str) -> None:
    """Of two processes that migrate at the same time one does it, and a third finds nothing."""
    done = await asyncio.gather(migrate(empty_database), migrate(empty_database))
    assert sorted(map(len, done)) == [0, len(list(MIGRATIONS.glob("*.sql")))]
    assert await pending(empty_database) == []


async def test_an_edited_migration_is_refused(empty_database: str, directory: Path) -> None:
    """A file that was changed after it was applied stops the next one."""
    await migrate(empty_database, directory)
    path = directory / "0001_core.sql"
    path.write_text(path.read_text() + "-- later\n")
    with pytest.raises(MigrationError, match="0001_core"):
        await migrate(empty_database, directory)


async def test_a_missing_migration_is_refused(empty_database: str, directory: Path) -> None:
    """A database that knows more than this release is not touched."""
    await migrate(empty_database, directory)
    last = max(directory.glob("*.sql"))
    last.unlink()
    with pytest.raises(MigrationError, match=last.stem):
        await migrate(empty_database, directory)


async def test_a_migration_that_fails_leaves_nothing(empty_database: str, directory: Path) -> None:
    """What went before stays, nothing of the failed one does, and it can be mended."""
    number = len(list(directory.glob("*.sql"))) + 1
    bad = directory / f"{number:04}_bad.sql"
    bad.write_text("create table half (id int);\nselect no_such_function();\n")
    with pytest.raises(Exception, match="no_such_function"):
        await migrate(empty_database, directory)
    bad.write_text("create table half (id int);\n")
    assert await migrate(empty_database, directory) == [bad.name]


async def test_a_log_that_was_begun_before_is_found_afterwards(
    empty_database: str, directory: Path, tmp_path: Path
) -> None:
    """Records that had their places before 0006 can be looked up by them, and what waited waits."""
    for path in directory.glob("*.sql"):
        if path.name >= "0006":
            path.rename(tmp_path / path.name)
    conn = await asyncpg.connect(empty_database)
    try:
        for migration in sorted(directory.glob("*.sql")):
            await conn.execute(migration.read_text())
        document, placed, waiting, refused, ended = (uuid.uuid4() for _ in range(5))
        made = [
            (placed, "intent", "allow", document, None),
            (refused, "intent", "deny", document, None),
            (ended, "intent", "allow", None, None),
            (uuid.uuid4(), "outcome", None, None, ended),
            (waiting, "intent", "allow", document, None),
        ]
        await conn.executemany(
            "insert into access_record (id, region, at, phase, principal, role, action,"
            " decision, document, intent) values ($1, 'uk', now(), $2, 'p', 'r', 'a', $3, $4, $5)",
            [(one, phase, decision, about, of) for one, phase, decision, about, of in made],
        )
        await conn.executemany(
            "insert into log_leaf (region, index, record, leaf_hash) values ('uk', $1, $2, '')",
            [(index, one) for index, (one, *_) in enumerate(made[:4])],
        )
        await conn.execute("insert into log_queue (record, region) values ($1, 'uk')", waiting)
        await conn.execute((tmp_path / "0006_log_lookup.sql").read_text())
        found = await conn.fetch(
            "select record, decision from log_leaf where document = $1", document
        )
        assert {(row["record"], row["decision"]) for row in found} == {
            (placed, "allow"),
            (refused, "deny"),
        }
        assert [row["intent"] for row in await conn.fetch("select * from log_open")] == [placed]
        assert [row["record"] for row in await conn.fetch("select * from log_queue")] == [waiting]
        with pytest.raises(asyncpg.RaiseError):
            await conn.execute("update log_leaf set action = 'x'")
    finally:
        await conn.close()
