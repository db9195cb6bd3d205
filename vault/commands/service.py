"""`portvault serve`, `worker` and `migrate`."""

import argparse

from vault.app import attached, serve, work_only
from vault.commands.operator import database_errors
from vault.commands.output import show
from vault.commands.parser import SUMMARIES, Tree
from vault.config.settings import load_config
from vault.migrate import migrate as migrate_database


async def run_server(args: argparse.Namespace) -> None:
    """Serve."""
    del args
    with database_errors():
        await serve(load_config())


async def run_worker(args: argparse.Namespace) -> None:
    """Work."""
    del args
    with database_errors():
        await work_only(load_config())


async def run_migrate(args: argparse.Namespace) -> None:
    """Apply what is new; an embedded database is started for it."""
    with database_errors():
        async with attached(load_config()) as dsn:
            applied = await migrate_database(dsn)
    text = "\n".join(applied) or "the database is up to date"
    show({"applied": applied}, text, as_json=args.json)


def add(tree: Tree) -> None:
    """Add the commands that run the vault, check it and set it up."""
    tree.command(
        "serve",
        run_server,
        SUMMARIES["serve"],
        "PORTVAULT_PORT=9000 portvault serve",
        serves=True,
    )
    tree.command("worker", run_worker, SUMMARIES["worker"], "portvault worker", serves=True)
    tree.command("migrate", run_migrate, SUMMARIES["migrate"], "portvault migrate")
