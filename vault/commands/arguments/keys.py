"""`portvault keys` and `portvault repair`."""

from vault.commands.arguments.tree import Tree
from vault.domain.regions import REGIONS


def add_keys(tree: Tree) -> None:
    """Add the commands of the key trees."""
    keys = tree.group("keys", "Look after the key trees.", "portvault keys status")
    status = keys.command("status", "keys.status", "Show the key trees.", "portvault keys status")
    status.add_argument("--region", choices=REGIONS)
    seal = keys.command(
        "seal",
        "keys.run_seal",
        "Make all shreds so far irrecoverable, now.",
        "portvault keys seal --region uk",
    )
    seal.add_argument("--region", choices=REGIONS)
    seal.add_argument("--force", action="store_true", help="replace the root anyway")
    check = keys.command(
        "verify",
        "keys.verify",
        "Open every key of the trees, and name what does not open or is missing.",
        "portvault keys verify --region uk",
    )
    check.add_argument("--region", choices=REGIONS)
    repair = tree.command(
        "repair",
        "repair.repair",
        "Look at everything at rest, mend what is damaged from what is sound, and name the rest.",
        "portvault repair --dry-run",
    )
    repair.add_argument("--region", choices=REGIONS, help="only this one (all)")
    repair.add_argument("--dry-run", action="store_true", help="change nothing; say what would be")
    repair.add_argument(
        "--backup",
        metavar="FILE",
        help="take sealed names, details and lost keys from this backup, where they open",
    )
    rotate = keys.command(
        "rotate-custodian",
        "keys.rotate",
        "Move a region's root key from `custodian_before` to `custodian`; content stays as it is.",
        "portvault keys rotate-custodian --region uk",
    )
    rotate.add_argument("--region", choices=REGIONS, required=True)
