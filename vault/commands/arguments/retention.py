"""`portvault retention`, `hold`, `restrict`, `unrestrict`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree, count, identity, kind
from vault.domain.documents import Kind
from vault.domain.regions import REGIONS


def add_retention(above: Tree) -> None:
    """Add the commands of retention, holds and restrictions."""
    tree = above.group(
        "retention",
        "Say why documents are here and until when; look after policy and instructions.",
        "portvault retention explain DOCUMENT",
    )
    explain = tree.command(
        "explain",
        "retention.explain",
        "Say why a document is here, until when, under which clause, and what keeps it.",
        "portvault retention explain ID",
    )
    explain.add_argument("document", type=identity, metavar="DOCUMENT")
    plan = tree.command(
        "plan",
        "retention.plan",
        "List what will go until a date, soonest first.",
        "portvault retention plan --until 2026-12-31",
    )
    plan.add_argument("--until", required=True, help="a date, or a time such as 2026-12-31T12:00Z")
    plan.add_argument("--limit", type=count, default=1000, help="documents at most (1000)")
    _add_policy(tree)
    _add_instructions(tree)
    _add_holds(above)
    for how, help_text in (
        ("restrict", "Let nobody read a document for the time being (GDPR art. 18)."),
        ("unrestrict", "Let a document be read again."),
    ):
        restrict = above.command(
            how, "retention.restrict", help_text, f"portvault {how} ID --reason C-7", how=how
        )
        restrict.add_argument("document", type=identity, metavar="DOCUMENT")
        restrict.add_argument("--reason", required=True, help="without names")


def _add_policy(tree: Tree) -> None:
    tree.command(
        "policy",
        "retention.policy",
        "Show the retention policy in force, row by row with its sources.",
        "portvault retention policy",
    )
    effect = tree.command(
        "effect",
        "retention.effect",
        "Say what another policy would change, and which documents would go at once.",
        "portvault retention effect retention.toml",
    )
    effect.add_argument("file", type=Path, metavar="FILE")
    apply = tree.command(
        "apply",
        "retention.apply",
        "Put a policy in force; one that shortens needs somebody else's agreement.",
        "portvault retention apply retention.toml --approval ID",
    )
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.add_argument("--approval", type=identity, metavar="ID", help="see `portvault approval`")


def _add_instructions(tree: Tree) -> None:
    instruct = tree.command(
        "instruct",
        "retention.instruct",
        "Keep what a customer asks for, between the policy's floor and its ceiling.",
        "portvault retention instruct --region uk --customer acme --keep P30D --kind invoice",
    )
    instruct.add_argument("--region", required=True, choices=REGIONS)
    instruct.add_argument("--customer", required=True, help="the customer's id, not a name")
    instruct.add_argument("--keep", required=True, help='"P30D", or "at once"')
    instruct.add_argument("--kind", type=kind, help=f"{', '.join(Kind)}; without: all")
    instruct.add_argument("--reference", help="the number of the case")
    listed = tree.command(
        "instructions",
        "retention.instructions",
        "List customers' instructions and what they contradict.",
        "portvault retention instructions --customer acme",
    )
    listed.add_argument("--customer")
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    for how, help_text in (
        ("resolve", "Follow an instruction as nearly as the policy allows."),
        ("withdraw", "End an instruction."),
    ):
        settled = tree.command(
            how, "retention.settle", help_text, f"portvault retention {how} ID", how=how
        )
        settled.add_argument("instruction", type=identity, metavar="INSTRUCTION")


def _add_holds(above: Tree) -> None:
    tree = above.group(
        "hold",
        "Keep documents as long as a case goes on.",
        "portvault hold place --region uk --order ID --reason dispute --authority counsel",
    )
    place = tree.command(
        "place",
        "retention.hold_place",
        "Place a hold on documents, orders and customers, present and future.",
        "portvault hold place --region uk --order ID --reason dispute --authority counsel",
    )
    place.add_argument("--region", required=True, choices=REGIONS)
    place.add_argument("--reason", required=True, help="without names")
    place.add_argument("--authority", required=True, help="who asks for it, without names")
    place.add_argument("--reference", help="the number of the case")
    for what in ("document", "order"):
        place.add_argument(
            f"--{what}", type=identity, action="append", metavar="ID", help="may be repeated"
        )
    place.add_argument("--customer", action="append", metavar="CUSTOMER", help="may be repeated")
    listed = tree.command("list", "retention.hold_list", "List holds.", "portvault hold list")
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    shown = tree.command(
        "show", "retention.hold_show", "Show a hold and what it covers.", "portvault hold show ID"
    )
    shown.add_argument("hold", type=identity, metavar="HOLD")
    release = tree.command(
        "release",
        "retention.hold_release",
        "Release a hold that somebody else has agreed to release; see `portvault approval`.",
        "portvault hold release ID --reason over --approval ID",
    )
    release.add_argument("hold", type=identity, metavar="HOLD")
    release.add_argument("--reason", required=True, help="without names")
    release.add_argument(
        "--approval", type=identity, metavar="ID", help="the approval of hold.release"
    )
