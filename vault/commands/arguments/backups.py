"""`portvault backup` and `restore`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree
from vault.domain.regions import REGIONS


def add_backups(tree: Tree) -> None:
    """Add the commands of backups."""
    backup = tree.command(
        "backup",
        "backups.backup",
        "Write a dump of the database (pg_dump); a running vault need not stop.",
        "portvault backup /srv/backup/portvault.dump",
    )
    backup.add_argument("file", type=Path, metavar="FILE")
    restore = tree.command(
        "restore",
        "backups.restore",
        "Bring an older database up to date, and say what lives and what is gone.",
        "portvault restore /srv/backup/portvault.dump --dry-run",
    )
    restore.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        nargs="?",
        help="a dump for an empty database (the one there is)",
    )
    restore.add_argument("--region", choices=REGIONS, help="only this one (all)")
    restore.add_argument("--dry-run", action="store_true", help="load FILE, and say what would be")
    restore.add_argument(
        "--leave-unknown",
        action="store_true",
        help="go on although documents were stored after the backup; their objects stay",
    )
