"""`portvault break-glass`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree, count, identity
from vault.domain.access import BREAK_GLASS_ROLES
from vault.domain.regions import REGIONS

_KNOWN = """\
Set PORTVAULT_TOKEN to a token of your own, so that it is known who opened it. The token
of an envelope that was opened by nobody known never asks for approvals or gives them."""


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
    seal.add_argument("--role", required=True, choices=[role.value for role in BREAK_GLASS_ROLES])
    seal.add_argument("--region", required=True, action="append", choices=REGIONS)
    seal.add_argument("--days", required=True, type=count, help="how long it can be opened")
    seal.add_argument(
        "--approval", type=identity, required=True, help="of the act break-glass, for ROLE/REGION/…"
    )
    opened = glass.command(
        "open",
        "break_glass.open_sealed",
        "Open a credential, once, and print a token; everybody is told.",
        "portvault break-glass open --credential-file /mnt/envelope --reference INC-7",
    )
    opened.add_argument("--credential-file", required=True, type=Path, metavar="FILE")
    opened.epilog = f"{opened.epilog}\n\n{_KNOWN}"
    opened.add_argument("--reference", required=True, help="the number of the incident")
    listed = glass.command(
        "list", "break_glass.listed", "List sealed credentials.", "portvault break-glass list"
    )
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    revoke = glass.command(
        "revoke",
        "break_glass.revoke",
        "Revoke a sealed credential, and the token it was opened for.",
        "portvault break-glass revoke ID",
    )
    revoke.add_argument("credential", type=identity, metavar="ID")
