"""`portvault repair`: what is damaged at rest, mended from what is sound."""

import argparse
from dataclasses import asdict
from pathlib import Path

from vault.actions.repair import Repaired
from vault.actions.repair import repair as repair_region
from vault.adapters.postgres.dump import DumpColumns
from vault.app import open_vault
from vault.commands.database import database_errors
from vault.commands.operator import operator, regions_of
from vault.commands.output import indented, show
from vault.config.settings import load_config
from vault.errors import VaultError


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
