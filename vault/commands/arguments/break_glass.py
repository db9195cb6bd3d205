"""`portvault break-glass`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree, count
from vault.domain.access import Role
from vault.domain.regions import REGIONS


def add_break_glass(tree: Tree) -> None:
    """Add the commands of break-glass."""
    glass = tree.group(
        "break-glass",
        "For the day the identity provider is down.",
        "portvault break-glass open --credential-file /mnt/envelope --reference INC-7",
    )
    seal = glass.command(
        "seal",
        "break_glass.seal",
        "Make a credential to be locked away, and print it, once; takes an approval of both.",
        "portvault break-glass seal --role dpo --region uk --days 365 --approval ID",
    )
    seal.add_argument(
        "--role", required=True, choices=[r.value for r in Role if r != "fax-gateway"]
    )
    seal.add_argument("--region", required=True, action="append", choices=REGIONS)
    seal.add_argument("--days", required=True, type=count, help="how long it can be opened")
    seal.add_argument("--approval", required=True, help="of the act break-glass, for ROLE/REGION/…")
    opened = glass.command(
        "open",
        "break_glass.open_sealed",
        "Open a credential, once, and print a token; everybody is told.",
        "portvault break-glass open --credential-file /mnt/envelope --reference INC-7",
    )
    opened.add_argument("--credential-file", required=True, type=Path, metavar="FILE")
    opened.add_argument("--reference", required=True, help="the number of the incident")
