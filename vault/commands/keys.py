"""`portvault keys` and `repair`: the key trees, and what lies damaged at rest."""

import argparse
from dataclasses import asdict
from pathlib import Path

from keys.custodian import MovingCustodian
from vault.actions.keys import keys_status, rotate_custodian, seal, verify_keys
from vault.actions.repair import Repaired
from vault.actions.repair import repair as repair_region
from vault.adapters.postgres.dump import DumpColumns
from vault.app import open_region_custodian, open_vault
from vault.commands.operator import database_errors, opened, operator, regions_of
from vault.commands.output import indented, show, table
from vault.commands.parser import SUMMARIES, Tree
from vault.config.settings import Config, load_config
from vault.domain.regions import REGIONS
from vault.errors import VaultError

# ---- Commands for the key trees. ----------------------------------------------------------------

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
    if seconds < 0:
        return "0 s (the clock went back)"
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


async def repair(args: argparse.Namespace) -> None:
    """Repair the regions; raises when something is left that cannot be mended."""
    config = load_config()
    wanted = regions_of(config, args.region)
    done, backup = list[Repaired](), None
    if args.backup is not None:
        backup = DumpColumns(Path(args.backup))
        await backup.open()
    with database_errors():
        # Without what a start would refuse to go on with: that may be what is to be mended.
        async with open_vault(config, restoring=True) as vault:
            for region in wanted:
                who = operator(config)
                done.append(
                    await repair_region(vault, who, region, dry_run=args.dry_run, backup=backup)
                )
    shown = [_shown(item, dry_run=args.dry_run) for item in done]
    show(shown, "\n\n".join(_text(item, dry_run=args.dry_run) for item in done), as_json=args.json)
    if left := sum(item.left for item in done):
        raise VaultError(f"{left} of what is damaged cannot be mended here: each says what to do")


def _shown(done: Repaired, *, dry_run: bool) -> dict[str, object]:
    mends = [{**asdict(mend.damage), "mended": mend.mended, "how": mend.how} for mend in done.mends]
    return {"region": done.region, "dry_run": dry_run, "left": done.left, "damages": mends}


def _text(done: Repaired, *, dry_run: bool) -> str:
    if not done.mends:
        return f"{done.region}: nothing is damaged"
    words = ("would be mended" if dry_run else "mended", "NOT MENDED")
    lines = [f"{done.region}: {len(done.mends)} damaged, {done.left} of them left"]
    # What is alike to be done is said once, below all that it is said of.
    alike = dict[tuple[bool, str], list[str]]()
    for mend in done.mends:
        alike.setdefault((mend.mended, mend.how), []).append(str(mend.damage))
    for (mended, how), damages in alike.items():
        lines += ["", f"{words[0] if mended else words[1]}:"]
        lines += [line for one in damages for line in indented(one, "- ", "  ")]
        lines += indented(how, "  > ", "    ")
    return "\n".join(lines)


def add(tree: Tree) -> None:
    """Add the commands of the key trees."""
    group = tree.group("keys", SUMMARIES["keys"], "portvault keys status")
    status_command = group.command("status", status, "Show the key trees.", "portvault keys status")
    status_command.add_argument("--region", choices=REGIONS)
    seal = group.command(
        "seal",
        run_seal,
        "Make all shreds so far irrecoverable, now.",
        "portvault keys seal --region uk",
    )
    seal.add_argument("--region", choices=REGIONS)
    seal.add_argument("--force", action="store_true", help="replace the root anyway")
    check = group.command(
        "verify",
        verify,
        "Open every key of the trees, and name what does not open or is missing.",
        "portvault keys verify --region uk",
    )
    check.add_argument("--region", choices=REGIONS)
    repair_command = tree.command(
        "repair",
        repair,
        SUMMARIES["repair"],
        "portvault repair --dry-run",
    )
    repair_command.add_argument("--region", choices=REGIONS, help="only this one (all)")
    repair_command.add_argument(
        "--dry-run", action="store_true", help="change nothing; say what would be"
    )
    repair_command.add_argument(
        "--backup",
        metavar="FILE",
        help="take sealed names, details and lost keys from this backup, where they open",
    )
    rotate_command = group.command(
        "rotate-custodian",
        rotate,
        "Move a region's root key from `custodian_before` to `custodian`; content stays as it is.",
        "portvault keys rotate-custodian --region uk",
    )
    rotate_command.add_argument("--region", choices=REGIONS, required=True)
