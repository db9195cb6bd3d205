"""Commands for the key trees."""

import argparse
from dataclasses import asdict

from keys.custodian import MovingCustodian
from vault.actions.keys import keys_status, rotate_custodian, seal, verify_keys
from vault.app import open_region_custodian
from vault.commands.database import opened
from vault.commands.operator import operator, regions_of
from vault.commands.output import show, table
from vault.config.settings import Config, load_config
from vault.errors import VaultError

_STATUS = ("region", "generation", "age", "documents", "keys", "scopes", "nodes", "depth")


async def status(args: argparse.Namespace) -> None:
    """Show the key trees."""
    config = load_config()
    rows = []
    async with opened(config) as vault:
        for region in regions_of(config, args.region):
            found = await keys_status(vault, operator(config), region)
            rows.append(
                {
                    **asdict(found.keys),
                    "documents": found.documents,
                    "age": _age(found.age_seconds),
                    "age_seconds": round(found.age_seconds),
                }
            )
    promises = sorted(
        {(row["custodian"], row["destroy_level"], row["destroy_promise"]) for row in rows}
    )
    text = table(rows, (*_STATUS, "dirty_scopes", "last_seal_at", "mirrored_at"))
    text += "".join(f"\n\n{name}, level {level}\n  {says}" for name, level, says in promises)
    shown = [{name: value for name, value in row.items() if name != "age"} for row in rows]
    show(shown, text, as_json=args.json)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


async def run_seal(args: argparse.Namespace) -> None:
    """Seal now."""
    config = load_config()
    done = []
    async with opened(config) as vault:
        for region in regions_of(config, args.region):
            result = await seal(vault, operator(config), region, force=args.force)
            if result is not None:
                done.append(asdict(result))
    columns = ("region", "old_generation", "new_generation", "scopes", "nodes", "destroyed_at")
    text = table(done, columns) if done else "nothing to seal; --force replaces the roots anyway"
    show(done, text, as_json=args.json)


async def verify(args: argparse.Namespace) -> None:
    """Open every key; raises when one does not open or is missing."""
    config = load_config()
    async with opened(config) as vault:
        walks = [
            await verify_keys(vault, operator(config), region)
            for region in regions_of(config, args.region)
        ]
    shown = [asdict(walk) for walk in walks]
    text = table(shown, ("region", "generation", "nodes", "scopes", "keys"))
    findings = [str(finding) for walk in walks for finding in walk.findings]
    text += "\n\n" + ("\n".join(findings) or "every key opens, and none is missing")
    show(shown, text, as_json=args.json)
    if findings:
        count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
        raise VaultError(
            f"{count}; seal nothing until `portvault repair` has mended them: its "
            "--dry-run says what it takes from where"
        )


_TAKE_OUT = "Take `custodian_before` out of the configuration and start the servers again."


async def rotate(args: argparse.Namespace) -> None:
    """Move a region to its new custodian."""
    config = load_config()
    regions_of(config, args.region)
    if await _is_moved(config, args.region):
        nothing = "nothing to move"
        text = f"{args.region}: {nothing}, its new custodian holds it alone. {_TAKE_OUT}"
        show({"region": args.region, "result": nothing}, text, as_json=args.json)
        return
    async with opened(config) as vault:
        result = await rotate_custodian(vault, operator(config), args.region)
    text = (
        f"{args.region}: generation {result.new_generation} is held by "
        f"{config.custodian_uri(args.region).partition('?')[0]}; the custodian before holds "
        f"nothing of it any more. {_TAKE_OUT}"
    )
    show(asdict(result), text, as_json=args.json)


async def _is_moved(config: Config, region: str) -> bool:
    custodian = open_region_custodian(config, region)
    try:
        return isinstance(custodian, MovingCustodian) and await custodian.is_moved(region)
    finally:
        await custodian.close()
