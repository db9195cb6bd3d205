"""A backup is input from outside: it is read as data, and whatever else is in it never runs."""

import shutil
from pathlib import Path

import asyncpg
import pytest

from tests.fixtures_process import VaultProcess
from vault.adapters.postgres import dump as dump_module
from vault.adapters.postgres.cluster import client_environment, run_tool, tool
from vault.adapters.postgres.dump import Dump
from vault.commands.backups import load
from vault.errors import ConfigurationError, VaultError
from vault.migrate import migrate, migrate_as, migrations_directory, read_migrations

#: Runs while the rows of `evil` are loaded, and whenever something is added to the tree.
HOSTILE = """
    create function evil(id int) returns boolean language plpgsql as $$
    begin
        create table if not exists public.ran ();
        return true;
    end $$;
    create table evil (id int check (evil(id)));
    insert into evil values (1);
    create function evil() returns trigger language plpgsql as
        $$ begin perform evil(1); return new; end $$;
    create trigger evil before insert on key_tree for each row execute function evil();
    drop table ran;
"""


async def execute(dsn: str, *statements: str) -> None:
    conn = await asyncpg.connect(dsn)
    for statement in statements:
        await conn.execute(statement)
    await conn.close()


@pytest.fixture
async def vault(tmp_path: Path, database: str) -> VaultProcess:
    """Give a vault that has made its tree, and does not run."""
    made = VaultProcess(tmp_path / "home", database=database)
    made.home.mkdir(mode=0o700)
    await made.json("keys", "status")
    return made


async def empty(dsn: str) -> None:
    """Empty the database."""
    await execute(dsn, "drop schema public cascade", "create schema public")


@pytest.mark.parametrize("kind", ["plain", "tar", "directory"])
async def test_a_format_that_can_run_commands_is_refused(
    vault: VaultProcess, database: str, tmp_path: Path, kind: str
) -> None:
    """Only PostgreSQL's custom format is taken; what to do with another is said."""
    file, mark = tmp_path / "backup", tmp_path / "ran"
    await run_tool("pg_dump", f"--format={kind}", f"--file={file}", dsn=database)
    if kind == "plain":
        file.write_text(f"\\! touch {mark}\n" + file.read_text())
    await empty(database)
    status, _, says = await vault.run("restore", str(file), "--dry-run")
    assert status == 1
    assert "pg_dump --format=custom" in says or "directory" in says
    assert not mark.exists()
    conn = await asyncpg.connect(database)
    assert await conn.fetchval("select to_regclass('key_tree')") is None
    await conn.close()


async def test_nothing_that_a_dump_defines_exists_afterwards(
    vault: VaultProcess, database: str, tmp_path: Path
) -> None:
    """Functions, triggers and tables of a dump are not made; its rows are there to the last."""
    file = tmp_path / "backup"
    conn = await asyncpg.connect(database)
    before = await conn.fetch("select * from access_record order by id")
    made = await conn.fetch("select * from key_tree")
    await conn.execute(HOSTILE)
    await run_tool("pg_dump", "--format=custom", f"--file={file}", dsn=database)
    await conn.close()
    await empty(database)
    status, _, says = await vault.run("restore", str(file), "--dry-run")
    assert status == 0, says
    conn = await asyncpg.connect(database)
    kept = await conn.fetch("select * from access_record order by id")
    assert [row for row in kept if row["id"] in {item["id"] for item in before}] == before
    assert await conn.fetch("select * from key_tree") == made
    for query in (
        "select to_regclass('ran')::text",
        "select to_regclass('evil')::text",
        "select max(proname) from pg_proc where proname = 'evil'",
        "select max(tgname) from pg_trigger where tgname = 'evil'",
    ):
        assert await conn.fetchval(query) is None
    triggers = "select count(*) from pg_trigger where not tgisinternal and tgenabled <> 'O'"
    assert await conn.fetchval(triggers) == 0
    # The control: loaded as its format is meant to be loaded, it runs.
    await conn.execute("drop schema public cascade; create schema public")
    await run_tool("pg_restore", "--no-owner", "--no-acl", str(file), dsn=database)
    assert await conn.fetchval("select to_regclass('ran')::text") == "ran"
    await conn.close()


async def test_a_dump_that_is_cut_or_spoiled_leaves_nothing(
    vault: VaultProcess, database: str, tmp_path: Path
) -> None:
    """What ends early or is not of a vault is refused, and no row of it stays."""
    file = tmp_path / "backup"
    await vault.json("backup", str(file))
    whole = file.read_bytes()
    await empty(database)
    for size in (5, len(whole) // 2, len(whole) * 9 // 10):
        file.write_bytes(whole[:size])
        status, _, says = await vault.run("restore", str(file), "--dry-run")
        assert (status, len(says.strip().splitlines())) == (1, 1), says
        conn = await asyncpg.connect(database)
        if await conn.fetchval("select to_regclass('key_tree') is not null"):
            assert not await conn.fetchval("select exists (select from key_tree)")
            assert not await conn.fetchval("select exists (select from access_record)")
        await conn.close()
    file.write_bytes(whole)
    assert (await vault.run("restore", str(file), "--dry-run"))[0] == 0


@pytest.mark.parametrize(
    "change, says",
    [
        ("alter table token add column evil text", "columns of token"),
        ("insert into migration (name, sha256) values ('9999_evil.sql', '')", "migration"),
        ("update migration set sha256 = sha256('') where name like '0003%'", "changed after"),
        ("drop table migration", "no dump of a vault"),
    ],
)
async def test_a_dump_of_another_schema_is_refused(
    vault: VaultProcess, database: str, tmp_path: Path, change: str, says: str
) -> None:
    """Columns and migrations that no release had are named, and nothing is taken over."""
    file = tmp_path / "backup"
    await execute(database, change)
    await run_tool("pg_dump", "--format=custom", f"--file={file}", dsn=database)
    await empty(database)
    status, _, said = await vault.run("restore", str(file), "--dry-run")
    assert status == 1
    assert says in said


async def test_no_program_of_postgresql_gets_our_environment(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads a dump gets nothing; what asks the database gets what its clients know."""
    monkeypatch.setenv("PORTVAULT_S3_SECRET_KEY", "s3cret")
    monkeypatch.setenv("PGSSLROOTCERT", "/ca")
    assert "PORTVAULT_S3_SECRET_KEY" not in client_environment()
    assert client_environment()["PGSSLROOTCERT"] == "/ca"
    monkeypatch.delenv("PGSSLROOTCERT")
    file, seen, program = tmp_path / "backup", tmp_path / "seen", tmp_path / "pg_restore"
    await run_tool("pg_dump", "--format=custom", f"--file={file}", dsn=database)
    program.write_text(f'#!/bin/sh\nenv >> {seen}\nexec {tool("pg_restore")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(dump_module, "tool", lambda _: program)
    opened = Dump(file)
    await opened.open()
    assert "access_record" in opened.tables()
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert names <= {"LC_ALL", "PWD", "OLDPWD", "SHLVL", "_", "PATH"}


async def test_a_file_that_is_no_dump(tmp_path: Path) -> None:
    """An empty file, words, and a dump's first letters alone are told apart from a dump."""
    file = tmp_path / "backup"
    for data, error in ((b"", ConfigurationError), (b"junk", ConfigurationError)):
        file.write_bytes(data)
        with pytest.raises(error, match="custom format"):
            await Dump(file).open()
    file.write_bytes(b"PGDMP" + bytes(100))
    with pytest.raises(VaultError, match="pg_restore failed"):
        await Dump(file).open()


@pytest.mark.parametrize("number", [4, 12, 29])
async def test_a_dump_of_an_earlier_release_is_brought_up(
    empty_database: str, tmp_path: Path, number: int
) -> None:
    """Rows go into the schema that they came from, and the later migrations act on them."""
    earlier, file = tmp_path / "migrations", tmp_path / "backup"
    earlier.mkdir()
    for path in sorted(migrations_directory().glob("*.sql"))[:number]:
        shutil.copy(path, earlier)
    conn = await asyncpg.connect(empty_database)
    await migrate_as(conn, [(item.name, item.digest) for item in read_migrations(earlier)])
    await conn.execute(
        """
        insert into key_mirror (region, intended, written, base_bytes, segments, segments_bytes)
        values ('uk', 7, 6, 5, 4, 3)
        """
    )
    await run_tool("pg_dump", "--format=custom", f"--file={file}", dsn=empty_database)
    await conn.execute("drop schema public cascade; create schema public")
    await load(empty_database, file)
    assert (
        len(await migrate(empty_database)) == len(read_migrations(migrations_directory())) - number
    )
    assert await conn.fetchval("select intended from key_mirror where region = 'uk'") == 7
    await conn.close()


async def test_a_name_that_is_taken_meanwhile_is_said_to_be(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """A file that appears between the look and the writing is named as one that was there."""
    target = tmp_path / "taken.dump"
    # A look follows the link and finds nothing; to make a file does not.
    target.symlink_to(tmp_path / "nowhere")
    status, _, says = await vault_process.run("backup", str(target))
    assert (status, "is there already; name a new file" in says) == (1, True)
