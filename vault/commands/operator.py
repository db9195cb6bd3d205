"""Commands for the operator on the machine: they open the vault itself, and are recorded, too."""

import argparse

from vault.app import attached, serve, work_only
from vault.commands.account import account
from vault.commands.database import database_errors
from vault.commands.output import show
from vault.config.settings import Config, load_config
from vault.domain.access import Principal, Role
from vault.domain.people import OPERATOR
from vault.errors import InvalidRequestError
from vault.migrate import migrate as migrate_database


def operator(config: Config, role: str = Role.ADMIN) -> Principal:
    """Return who runs this command, by what the kernel says of the process."""
    return Principal(f"{OPERATOR}{account()}", role, frozenset(config.regions))


def regions_of(config: Config, wanted: str | None) -> tuple[str, ...]:
    """Return the region that was asked for, or all."""
    if wanted is None:
        return config.regions
    if wanted not in config.regions:
        raise InvalidRequestError(f"region must be one of {', '.join(config.regions)}")
    return (wanted,)


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
