"""Commands for backups: write a dump, and bring an older state up to date."""

import argparse
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import asyncpg

from keys.errors import RestoreRefusedError
from vault.actions.backup import backed_up
from vault.actions.follow import Decision
from vault.actions.recover import OrderLine
from vault.actions.restore import Restored
from vault.actions.restore import restore as restore_region
from vault.adapters.dump import Dump
from vault.adapters.postgres_tools import run_tool
from vault.app import attached, login, open_vault
from vault.commands.database import database_errors
from vault.commands.operator import operator, regions_of
from vault.commands.output import show, table
from vault.config import Config, load_config
from vault.errors import ConfigurationError
from vault.migrate import migrate, migrate_as, pending
from vault.sql import loading
from vault.sql.connection import Connection
from vault.sql.restore import Line

#: A statement of a restore may take as long as the tree is large.
STATEMENT_SECONDS = 4 * 3600.0
_LINES_MAX = 200
#: What to do about documents that cannot be brought back.
IN_QUESTION = {
    "unknown": "bring its object back into the bucket and begin again, or restore a later backup, "
    "or leave it with `--leave-unknown`",
    "lost": "stored after the tree's last copy: restore a later backup, or replay more WAL, or "
    "leave it with `--leave-unknown`",
}


async def backup(args: argparse.Namespace) -> None:
    """Dump the database into a file that only this user may read."""
    if args.file.exists():
        raise ConfigurationError(f"{args.file} is there already; name a new file")
    config = load_config()
    with database_errors():
        async with attached(config) as dsn, _recorded(config, dsn):
            os.close(os.open(args.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
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
        print("the schema is older than this release: not recorded in the log", file=sys.stderr)
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
            done = [
                await _one(config, dsn, region, args) for region in regions_of(config, args.region)
            ]
    shown = [asdict(item) for item in done]
    show(shown, "\n\n".join(restored_text(item, args) for item in done), as_json=args.json)
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
            known = await loading.tables(conn)
            names = await loading.in_order(conn, known)
            await loading.begin(conn, names)
            for name in names:
                block = await dump.block(name)
                if block is None:
                    continue
                if not known[name].issuperset(block.columns):
                    raise ConfigurationError(
                        f"{file} has columns of {name} that no vault of its release has"
                    )
                await loading.copy(conn, name, block.columns, block.rows)
            await loading.end(conn, names, await dump.sequences())
    except asyncpg.DataError as error:
        raise ConfigurationError(f"{file} holds rows that are none: {error}") from None
    finally:
        await conn.close()


async def _make_room(conn: Connection) -> None:
    """Clear a database in which no tree was ever planted, so that nothing can be kept in it."""
    planted = await conn.fetchval("select to_regclass('key_tree') is not null")
    if planted and not await conn.fetchval("select exists (select from key_tree)"):
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


def restored_text(done: Restored, args: argparse.Namespace) -> str:
    """Return what is said of a region: what is in question first, and last how to do it."""
    parts = [_summary(done, dry=args.dry_run)]
    if done.doubt:
        parts.append(
            f"Nothing of {done.region} goes by its time: it is not known what was decided by "
            f"{done.doubt}. Do what is said below, then have two people agree: `portvault approval "
            f"request --act expiry.resume --subject DAY --region {done.region} --reason incident` "
            "with the day as YYYY-MM-DD (UTC), and `portvault approval approve ID`."
        )
    parts += [
        _in_question(done),
        _rows(done.decisions, ("at", "action", "thing", "state", "detail")),
        _rows(done.orders, ("order", "state", "detail")),
        _rows(
            sorted(done.documents, key=lambda line: line.state not in IN_QUESTION),
            ("document", "order", "kind", "state", "detail"),
        ),
    ]
    if args.dry_run and not done.refused:
        loaded = ", without the file, which is loaded" if args.file is not None else ""
        options = [f"--region {args.region}"] if args.region else []
        options += ["--leave-unknown"] if args.leave_unknown else []
        command = " ".join(["portvault restore", *options])
        parts.append(f"Nothing is changed yet; to do this: `{command}`{loaded}.")
    return "\n\n".join(part for part in parts if part)


def _in_question(done: Restored) -> str:
    """Say of what cannot be brought back what to do; its rows come first."""
    return "\n".join(
        f"{state}: {remedy}" for state, remedy in IN_QUESTION.items() if done.count(state)
    )


def _summary(done: Restored, *, dry: bool) -> str:
    tree = done.tree
    if tree is None:
        return f"{done.region}: nothing was changed"
    states = ("living", "recovered", "shredded", "sealed", "missing", "unknown", "lost")
    counts = ", ".join(f"{done.count(state)} {state}" for state in states if done.count(state))
    verb = "restored" if not dry else "would be restored"
    if done.refused:
        verb = "not restored"
    said = (
        f"{done.region}: {verb}; the key tree is the "
        f"{tree.source}'s (generation {tree.generation}; the database had "
        f"{tree.database_generation or 'none'}), {done.records} access records taken over, "
        f"{done.shredded_again} shreds repeated on keys that the tree still had; "
        f"{counts or 'no documents'}"
    )
    if tree.passed_over:
        said += (
            f"; {len(tree.passed_over)} segments of the key tree in the bucket do not verify and "
            f"were passed over, such as {tree.passed_over[0]}"
        )
    return said


def _rows(items: Sequence[Decision | OrderLine | Line], columns: tuple[str, ...]) -> str:
    rows = [asdict(item) for item in items]
    for row in rows:
        if (at := row.get("at")) is not None:
            row["at"] = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    more = len(rows) - _LINES_MAX
    note = f"\n... and {more} more; --json names all" if more > 0 else ""
    return f"{table(rows[:_LINES_MAX], columns)}{note}" if rows else ""
