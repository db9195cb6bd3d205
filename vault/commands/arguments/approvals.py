"""`portvault approval`."""

from vault.commands.arguments.tree import Tree, count, identity, reason
from vault.domain.access import Purpose
from vault.domain.approvals import REASONS, Act
from vault.domain.regions import REGIONS


def add_approvals(tree: Tree) -> None:
    """Add the commands of approvals."""
    approval = tree.group(
        "approval",
        "Ask for what takes four eyes, and agree to what others ask for.",
        "portvault approval list",
    )
    request = approval.command(
        "request",
        "approvals.request",
        "Ask for an act that somebody else has to agree to, and print the request's id.",
        "portvault approval request --act hold.release --subject HOLD --region uk --reason C-7",
    )
    acts = [act.value for act in Act]
    request.add_argument("--act", required=True, metavar="ACT", choices=acts, help=", ".join(acts))
    request.add_argument("--subject", required=True, help="the id of what it is about")
    request.add_argument("--region", required=True, choices=REGIONS)
    request.add_argument(
        "--reason",
        type=reason(REASONS),
        required=True,
        help=f"the number of a case, or one of {', '.join(REASONS)}",
    )
    request.add_argument(
        "--purpose",
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help="why a disclosure reads, as disclose-to-authority",
    )
    request.add_argument("--reference", help="the number of the case that a disclosure is for")
    request.add_argument("--days", type=count, help="how long a sealed credential can be opened")
    listed = approval.command(
        "list", "approvals.listed", "List what was asked for.", "portvault approval list"
    )
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    approve = approval.command(
        "approve",
        "approvals.approve",
        "Agree to what somebody else asked for.",
        "portvault approval approve ID",
    )
    approve.add_argument("approval", type=identity, metavar="ID")
    decline = approval.command(
        "decline",
        "approvals.decline",
        "Refuse what somebody else asked for, agreed to or not.",
        "portvault approval decline ID",
    )
    decline.add_argument("approval", type=identity, metavar="ID")
    withdraw = approval.command(
        "withdraw",
        "approvals.withdraw",
        "Take a request of your own back, agreed to or not.",
        "portvault approval withdraw ID",
    )
    withdraw.add_argument("approval", type=identity, metavar="ID")
