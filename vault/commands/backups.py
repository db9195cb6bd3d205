"""`portvault backup` and `restore`."""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import asyncpg

from keys.errors import RestoreRefusedError
from vault.actions.restore import Restored, backed_up
from vault.actions.restore import restore as restore_region
from vault.adapters.postgres.cluster import run_tool
from vault.adapters.postgres.dump import Dump
from vault.app import attached, login, open_vault
from vault.commands.operator import database_errors, operator, regions_of
from vault.commands.output import show, tell
from vault.commands.parser import SUMMARIES, Tree
from vault.commands.restore_report import report
from vault.config.settings import Config, load_config
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError
from vault.migrate import migrate, migrate_as, pending
from vault.sql import restore as restore_sql
from vault.sql.connection import Connection

# ---- Commands for backups: write a dump, and bring an older state up to date. -------------------

#: A statement of a restore may take as long as the tree is large.
STATEMENT_SECONDS = 4 * 3600.0


async def backup(args: argparse.Namespace) -> None:
    """Dump the database into a file that only this user may read."""
    taken = ConfigurationError(f"{args.file} is there already; name a new file")
    if args.file.exists():
        raise taken
    config = load_config()
    with database_errors():
        async with attached(config) as dsn, _recorded(config, dsn):
            try:
                os.close(os.open(args.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                # Another backup was faster, or it is a link that leads nowhere.
                raise taken from None
            try:
                await run_tool("pg_dump", "--format=custom", f"--file={args.file}", dsn=dsn)
            except BaseException:
                args.file.unlink(missing_ok=True)
                raise
    size = args.file.stat().st_size
    text = f"{args.file}: {size} bytes; objects and root keys are not in it"
    show({"file": str(args.file), "size_bytes": size}, text, as_json=args.json)


@asynccontextmanager
async def _recorded(config: Config, dsn: str) -> AsyncIterator[None]:
    """Record the backup; a schema that waits for migrations cannot take records of this release."""
    if await pending(dsn):
        tell("the schema is older than this release: not recorded in the log")
        yield
        return
    async with open_vault(config, dsn=login(config)) as vault, backed_up(vault, operator(config)):
        yield


async def restore(args: argparse.Namespace) -> None:
    """Restore the regions, one after the other."""
    config = replace(load_config(), database_timeout_seconds=STATEMENT_SECONDS)
    with database_errors():
        async with attached(config) as dsn:
            if args.file is not None:
                await load(dsn, args.file)
            await _require_loaded(dsn)
            await migrate(dsn)
            done = await each_region(config, dsn, args)
    shown = [asdict(item) for item in done]
    show(shown, report(done, args), as_json=args.json)
    if refused := [item.refused for item in done if item.refused]:
        raise RestoreRefusedError("; ".join(refused))


async def _require_loaded(dsn: str) -> None:
    """Refuse to bring a database up to date that holds nothing: no tree was ever in it."""
    conn = await asyncpg.connect(dsn)
    try:
        made = await conn.fetchval("select to_regclass('key_tree') is not null")
        if made and await conn.fetchval("select exists (select from key_tree)"):
            return
    finally:
        await conn.close()
    raise ConfigurationError(
        "no backup was loaded, and the database is empty: `portvault restore FILE --dry-run` loads "
        "the file of the last backup"
    )


async def each_region(config: Config, dsn: str, args: argparse.Namespace) -> list[Restored]:
    """Restore region by region; one that is refused keeps no other from it."""
    return [await _one(config, dsn, region, args) for region in regions_of(config, args.region)]


async def _one(config: Config, dsn: str, region: str, args: argparse.Namespace) -> Restored:
    async with open_vault(replace(config, regions=(region,)), dsn=dsn, restoring=True) as vault:
        return await restore_region(
            vault,
            operator(config),
            region,
            dry_run=args.dry_run,
            leave_unknown=args.leave_unknown,
        )


async def load(dsn: str, file: Path) -> None:
    """
    Fill an empty database with the rows of a dump, as a whole or not at all.

    The schema is made by this release's own migrations, as far as the dump had them. Nothing that
    the dump defines is looked at, so nothing in it can run.
    """
    dump = Dump(file)
    await dump.open()
    applied = await dump.migrations()
    conn = await asyncpg.connect(dsn)
    try:
        await _make_room(conn)
        await migrate_as(conn, applied)
        async with conn.transaction():
            known = await restore_sql.tables(conn)
            names = await restore_sql.in_order(conn, known)
            await restore_sql.begin_loading(conn, names)
            for name in names:
                block = await dump.block(name)
                if block is None:
                    continue
                if not known[name].issuperset(block.columns):
                    raise ConfigurationError(
                        f"{file} has columns of {name} that no vault of its release has"
                    )
                await restore_sql.copy_rows(conn, name, block.columns, block.rows)
            await restore_sql.end_loading(conn, names, await dump.sequences())
    except asyncpg.DataError as error:
        raise ConfigurationError(f"{file} holds rows that are none: {error}") from None
    finally:
        await conn.close()


async def _make_room(conn: Connection) -> None:
    """Clear a database in which no tree was ever started, so that nothing can be kept in it."""
    started = await conn.fetchval("select to_regclass('key_tree') is not null")
    if started and not await conn.fetchval("select exists (select from key_tree)"):
        await conn.execute("drop schema public cascade; create schema public")
    taken = await conn.fetchval(
        "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
    )
    if taken:
        raise ConfigurationError(
            "the database is not empty, and nothing is ever restored over another state: move its "
            "directory away, or name an empty database; if a dry run has loaded this file, or the "
            "database is to be taken as it is, run `portvault restore` without the file"
        )


def add(tree: Tree) -> None:
    """Add the commands of backups."""
    backup_command = tree.command(
        "backup",
        backup,
        SUMMARIES["backup"],
        "portvault backup /srv/backup/portvault.dump",
    )
    backup_command.add_argument("file", type=Path, metavar="FILE")
    restore_command = tree.command(
        "restore",
        restore,
        SUMMARIES["restore"],
        "portvault restore /srv/backup/portvault.dump --dry-run",
    )
    restore_command.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        nargs="?",
        help="a dump for an empty database (the one there is)",
    )
    restore_command.add_argument("--region", choices=REGIONS, help="only this one (all)")
    restore_command.add_argument(
        "--dry-run", action="store_true", help="load FILE, and say what would be"
    )
    restore_command.add_argument(
        "--leave-unknown",
        action="store_true",
        help="go on although documents were stored after the backup; their objects stay",
    )
