"""
Brings a database up to the schema of this release: SQL files, forward only, each applied once.

Each file runs in a transaction of its own, in the order of its number, and its SHA-256 is kept;
whoever migrates holds one advisory lock, so that processes that start together apply each file
once, and the service's role is given what it may do. A database whose history differs from the
files is refused, never repaired. There is no way back: take a backup first.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import asyncpg

from vault.errors import VaultError
from vault.sql import connection as connection_sql
from vault.sql import session as privileges
from vault.sql.session import require_own_session, require_server

NAME = re.compile(r"(\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
CONNECT_SECONDS = 10


class MigrationError(VaultError):
    """The database and the migrations do not fit together."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; `digest` is the SHA-256 of its bytes."""

    name: str
    sql: str
    digest: bytes


def migrations_directory() -> Path:
    """Return where the files are: inside an installed wheel, or beside `vault` in a checkout."""
    package = Path(str(files("vault")))
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def read_migrations(directory: Path) -> list[Migration]:
    """Read the files in order; their numbers must be 0001, 0002 and so on, each once."""
    if not directory.is_dir():
        raise MigrationError(f"there is no directory {directory}; install portvault again")
    found = []
    for number, path in enumerate(sorted(directory.glob("*.sql")), start=1):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name} must be named NNNN_words.sql; rename it")
        if int(match[1]) != number:
            raise MigrationError(f"{path.name} must have number {number:04}; renumber it")
        content = path.read_bytes()
        found.append(Migration(path.name, content.decode(), hashlib.sha256(content).digest()))
    return found


async def migrate(database: str | asyncpg.Connection, directory: Path | None = None) -> list[str]:
    """
    Apply what is pending and return its names; durable when it returns.

    A migration that fails leaves those before it applied and nothing of its own; its error passes.
    """
    return await _migrate(database, read_migrations(directory or migrations_directory()))


async def migrate_as(connection: asyncpg.Connection, applied: list[tuple[str, bytes]]) -> None:
    """
    Apply to an empty database what was applied to another one, given by names and digests.

    What its role may do is granted by `migrate`, which is to bring it up to this release.
    """
    migrations = read_migrations(migrations_directory())
    waiting = _pending(migrations, applied)
    await _migrate(connection, migrations[: len(migrations) - len(waiting)], granting=not waiting)


async def _migrate(
    database: str | asyncpg.Connection, migrations: list[Migration], *, granting: bool = True
) -> list[str]:
    connection, borrowed = await _connect(database)
    try:
        await connection_sql.lock_migrations(connection)
        try:
            if not await privileges.owns(connection):
                return await _nothing_to_do(connection, migrations)
            await connection_sql.create_migrations(connection)
            waiting = _pending(migrations, await connection_sql.applied_migrations(connection))
            for migration in waiting:
                async with connection.transaction():
                    await connection.execute(migration.sql)
                    await connection_sql.add_migration(connection, migration.name, migration.digest)
            if granting:
                await privileges.grant(connection)
        finally:
            await connection_sql.unlock_migrations(connection)
    finally:
        if not borrowed:
            await connection.close()
    return [migration.name for migration in waiting]


async def _nothing_to_do(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    """Return nothing; raises when an account that may not change the schema would have to."""
    found = (
        await connection_sql.applied_migrations(connection)
        if await connection_sql.has_migrations(connection)
        else []
    )
    if waiting := _pending(migrations, found):
        raise MigrationError(
            f"{len(waiting)} migrations wait, and this account may not apply them: run "
            "`portvault migrate` with the address of the database's owner in PORTVAULT_DATABASE"
        )
    return []


async def pending(database: str | asyncpg.Connection, directory: Path | None = None) -> list[str]:
    """Return the names that `migrate` would apply, and change nothing."""
    migrations = read_migrations(directory or migrations_directory())
    connection, borrowed = await _connect(database)
    try:
        found = (
            await connection_sql.applied_migrations(connection)
            if await connection_sql.has_migrations(connection)
            else []
        )
    finally:
        if not borrowed:
            await connection.close()
    return [migration.name for migration in _pending(migrations, found)]


def _pending(migrations: list[Migration], applied: list[tuple[str, bytes]]) -> list[Migration]:
    known = {migration.name: migration for migration in migrations}
    for (name, digest), expected in zip(applied, migrations, strict=False):
        if name not in known:
            break
        if name != expected.name:
            raise MigrationError(
                f"{expected.name} would be applied after {name}; give it the next free number"
            )
        if digest != expected.digest:
            raise MigrationError(
                f"{name} was changed after it was applied; put the file back as it was, "
                "and make the change in a new migration"
            )
    for name, _ in applied:
        if name not in known:
            raise MigrationError(
                f"{name} was applied to this database but is not among the migrations; "
                "run the release that brought it, or a later one"
            )
    return migrations[len(applied) :]


async def _connect(database: str | asyncpg.Connection) -> tuple[asyncpg.Connection, bool]:
    if not isinstance(database, str):
        return database, True
    connection = await asyncpg.connect(database, timeout=CONNECT_SECONDS)
    try:
        require_server(connection)
        await require_own_session(connection, database)
    except BaseException:
        await connection.close()
        raise
    return connection, False
