"""Commands for the operator on the machine: they open the vault itself, and are recorded, too."""

import argparse
import getpass
from dataclasses import asdict

from vault.actions.records import verify_region
from vault.actions.sequence import sequence_log
from vault.app import attached, serve, work_only
from vault.commands.database import database_errors, opened
from vault.commands.output import facts, show
from vault.config import Config, load_config
from vault.context import Vault
from vault.domain.access import Principal, Role
from vault.domain.verify import Verdict
from vault.errors import InvalidRequestError, VaultError
from vault.migrate import migrate as migrate_database


def operator(config: Config, role: str = Role.ADMIN) -> Principal:
    """Return who runs this command, by the name of the account."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Principal(f"operator:{name}", role, frozenset(config.regions))


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


async def run_config(args: argparse.Namespace) -> None:
    """Show every setting."""
    shown = load_config().shown()
    text = "\n".join(f"{name} = {value}" for name, value in shown.items())
    show(shown, text, as_json=args.json)


async def log_verify(args: argparse.Namespace) -> None:
    """Check the log against its signed checkpoints; raises when it does not hold."""
    config = load_config()
    async with opened(config) as vault:
        verdicts = {
            region: await _verify(vault, config, region)
            for region in regions_of(config, args.region)
        }
    shown = {name: asdict(verdict) for name, verdict in verdicts.items()}
    lines = [
        facts(
            {
                "region": name,
                "records": verdict.size,
                "intact": verdict.intact,
                "complete": verdict.complete,
                "consistent": verdict.consistent,
                "in_flight": verdict.in_flight,
                "anchored": "no witness",
                "findings": "; ".join(verdict.findings) or None,
            }
        )
        for name, verdict in verdicts.items()
    ]
    show(shown, "\n\n".join(lines), as_json=args.json)
    if not all(verdict.good for verdict in verdicts.values()):
        raise VaultError("the log does not hold; keep the database and the checkpoints as they are")


async def _verify(vault: Vault, config: Config, region: str) -> Verdict:
    reader = operator(config, Role.COMPLIANCE)
    await sequence_log(vault, region)
    return await verify_region(vault, reader, region)
