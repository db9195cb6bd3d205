"""Migrations: each once, in order, and never edited afterwards."""

import asyncio
import shutil
from pathlib import Path

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
