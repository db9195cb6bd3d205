"""`portvault retention`, `restrict`, `unrestrict` and `hold`, over HTTP."""

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import facts, marked, show, table, tell
from vault.commands.parser import SUMMARIES, Tree, count, identity, kind
from vault.domain.documents import Kind
from vault.domain.regions import REGIONS

# ---- Commands of retention, holds and restrictions, by the HTTP API. ----------------------------

_PAGE = 200
_HOLD_COLUMNS = (
    *("id", "region", "reason", "authority", "reference", "placed_by", "placed_at", "released_by"),
    "released_at",
)
_INSTRUCTION_COLUMNS = (
    *("id", "customer", "kind", "keep", "given_by", "given_at", "resolved_at", "withdrawn_at"),
)


async def explain(args: argparse.Namespace) -> None:
    """Say why a document is here, until when, and what keeps it."""
    path = f"/v1/documents/{quote(args.document, safe='')}/retention"
    async with session() as http:
        found = await call(http, "GET", path)
    holds = [
        f"\nheld by {hold['id']}: {hold['reason']} ({hold['authority']})" for hold in found["holds"]
    ]
    show(found, found["sentence"] + "".join(holds), as_json=args.json)


async def plan(args: argparse.Namespace) -> None:
    """List what will go until a date."""
    rows: list[dict[str, Any]] = []
    query = {"until": args.until, "limit": str(min(_PAGE, args.limit))}
    unjudged = 0
    async with session() as http:
        while len(rows) < args.limit:
            page = await call(http, "GET", "/v1/retention/plan", params=query)
            rows += page["data"]
            unjudged = page["unjudged"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        else:
            tell(f"there may be more than {args.limit}; see --limit")
    if unjudged:
        tell(f"{unjudged} documents were not judged yet; the worker does that; ask again")
    shown = [
        {**row, **{name: row["retention"][name] for name in ("due_at", "state", "row")}}
        for row in rows[: args.limit]
    ]
    columns = ("due_at", "document", "order", "kind", "region", "state", "row")
    show(rows[: args.limit], table(shown, columns), as_json=args.json)


async def policy(args: argparse.Namespace) -> None:
    """Show the policy in force."""
    async with session() as http:
        found = await call(http, "GET", "/v1/retention/policy")
    columns = ("row", "kind", "region", "event", "keep_min", "keep_max", "citation")
    text = f"version {found['version']}\n\n{table(found['rules'], columns)}"
    show(found, text, as_json=args.json)


async def effect(args: argparse.Namespace) -> None:
    """Say what a policy would change."""
    fields = {"text": args.file.read_text(encoding="utf-8")}
    async with session() as http:
        found = await call(http, "POST", "/v1/retention/policy/effect", json=fields)
    show(found, _effect_text(found), as_json=args.json)


async def apply(args: argparse.Namespace) -> None:
    """Put a policy in force."""
    fields = {"text": args.file.read_text(encoding="utf-8")}
    if args.approval:
        fields["approval"] = args.approval
    async with session() as http:
        found = await call(http, "POST", "/v1/retention/policy", json=fields)
    text = f"version {found['version']} is in force\n{_effect_text(found)}"
    show(found, text, as_json=args.json)


def _effect_text(found: dict[str, Any]) -> str:
    lines = found["changes"] or ["no time changes"]
    lines.append(f"{found['at_once']} documents and faxes would go at once")
    lines += [f"  {name}: {count}" for name, count in found["by_kind"].items()]
    lines += [f"  {document}" for document in found["documents"]]
    if found["shortens"]:
        lines.append(
            f"it shortens: somebody else has to agree to policy.shorten {found['subject']}"
        )
    return "\n".join(lines)


async def instruct(args: argparse.Namespace) -> None:
    """Keep a customer's instruction, and name what it contradicts."""
    fields = {"region": args.region, "customer": args.customer, "keep": args.keep}
    fields |= {name: value for name in ("kind", "reference") if (value := getattr(args, name))}
    async with session() as http:
        found = await call(http, "POST", "/v1/retention/instructions", json=fields)
    for conflict in found["conflicts"]:
        tell(f"conflict: {conflict}")
    show(found, found["id"], as_json=args.json)


async def instructions(args: argparse.Namespace) -> None:
    """List customers' instructions."""
    query = {"limit": str(args.limit)} | ({"customer": args.customer} if args.customer else {})
    async with session() as http:
        page = await call(http, "GET", "/v1/retention/instructions", params=query)
    columns = (*_INSTRUCTION_COLUMNS, "conflicts")
    show(page["data"], table(page["data"], columns), as_json=args.json)


async def settle(args: argparse.Namespace) -> None:
    """Resolve an instruction's conflicts, or withdraw it."""
    path = f"/v1/retention/instructions/{quote(args.instruction, safe='')}/actions/{args.how}"
    async with session() as http:
        found = await call(http, "POST", path)
    show(found, facts(found), as_json=args.json)


async def hold_place(args: argparse.Namespace) -> None:
    """Place a hold."""
    fields = {
        "region": args.region,
        "reason": args.reason,
        "authority": args.authority,
        "documents": args.document or [],
        "orders": args.order or [],
        "customers": args.customer or [],
    }
    if args.reference:
        fields["reference"] = args.reference
    async with session() as http:
        found = await call(http, "POST", "/v1/holds", json=fields)
    show(found, found["id"], as_json=args.json)


async def hold_list(args: argparse.Namespace) -> None:
    """List holds."""
    async with session() as http:
        page = await call(http, "GET", "/v1/holds", params={"limit": str(args.limit)})
    show(page["data"], marked(page["data"], _HOLD_COLUMNS), as_json=args.json)


async def hold_show(args: argparse.Namespace) -> None:
    """Show a hold and what it covers."""
    async with session() as http:
        found = await call(http, "GET", f"/v1/holds/{quote(args.hold, safe='')}")
    show(found, facts(found), as_json=args.json)


async def hold_release(args: argparse.Namespace) -> None:
    """Release a hold."""
    path = f"/v1/holds/{quote(args.hold, safe='')}/actions/release"
    fields = {"reason": args.reason}
    if args.approval:
        fields["approval"] = args.approval
    async with session() as http:
        found = await call(http, "POST", path, json=fields)
    show(found, facts(found), as_json=args.json)


async def restrict(args: argparse.Namespace) -> None:
    """Restrict a document, or lift its restriction."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/{args.how}"
    async with session() as http:
        found = await call(http, "POST", path, json={"reason": args.reason})
    text = "nobody reads it any more" if found["restriction"] else "it can be read again"
    show(found, text, as_json=args.json)


def add(above: Tree) -> None:
    """Add the commands of retention, holds and restrictions."""
    tree = above.group(
        "retention",
        SUMMARIES["retention"],
        "portvault retention explain DOCUMENT",
    )
    explain_command = tree.command(
        "explain",
        explain,
        "Say why a document is here, until when, under which clause, and what keeps it.",
        "portvault retention explain ID",
    )
    explain_command.add_argument("document", type=identity, metavar="DOCUMENT")
    plan_command = tree.command(
        "plan",
        plan,
        "List what will go until a date, soonest first.",
        "portvault retention plan --until 2026-12-31",
    )
    plan_command.add_argument(
        "--until", required=True, help="a date, or a time such as 2026-12-31T12:00Z"
    )
    plan_command.add_argument("--limit", type=count, default=1000, help="documents at most (1000)")
    _add_policy(tree)
    _add_instructions(tree)
    _add_holds(above)
    for how in ("restrict", "unrestrict"):
        restrict_command = above.command(
            how, restrict, SUMMARIES[how], f"portvault {how} ID --reason C-7", how=how
        )
        restrict_command.add_argument("document", type=identity, metavar="DOCUMENT")
        restrict_command.add_argument("--reason", required=True, help="without names")


def _add_policy(tree: Tree) -> None:
    tree.command(
        "policy",
        policy,
        "Show the retention policy in force, row by row with its sources.",
        "portvault retention policy",
    )
    effect_command = tree.command(
        "effect",
        effect,
        "Say what another policy would change, and which documents and faxes would go at once.",
        "portvault retention effect retention.toml",
    )
    effect_command.add_argument("file", type=Path, metavar="FILE")
    apply_command = tree.command(
        "apply",
        apply,
        "Put a policy in force; one that shortens needs somebody else's agreement.",
        "portvault retention apply retention.toml --approval ID",
    )
    apply_command.add_argument("file", type=Path, metavar="FILE")
    apply_command.add_argument(
        "--approval", type=identity, metavar="ID", help="see `portvault approval`"
    )


def _add_instructions(tree: Tree) -> None:
    instruct_command = tree.command(
        "instruct",
        instruct,
        "Keep what a customer asks for, between the policy's floor and its ceiling.",
        "portvault retention instruct --region uk --customer acme --keep P30D --kind invoice",
    )
    instruct_command.add_argument("--region", required=True, choices=REGIONS)
    instruct_command.add_argument("--customer", required=True, help="the customer's id, not a name")
    instruct_command.add_argument("--keep", required=True, help='"P30D", or "at once"')
    instruct_command.add_argument("--kind", type=kind, help=f"{', '.join(Kind)}; without: all")
    instruct_command.add_argument("--reference", help="the number of the case")
    listed = tree.command(
        "instructions",
        instructions,
        "List customers' instructions and what they contradict.",
        "portvault retention instructions --customer acme",
    )
    listed.add_argument("--customer")
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    for how, help_text in (
        ("resolve", "Follow an instruction as nearly as the policy allows."),
        ("withdraw", "End an instruction."),
    ):
        settled = tree.command(how, settle, help_text, f"portvault retention {how} ID", how=how)
        settled.add_argument("instruction", type=identity, metavar="INSTRUCTION")


def _add_holds(above: Tree) -> None:
    tree = above.group(
        "hold",
        SUMMARIES["hold"],
        "portvault hold place --region uk --order ID --reason dispute --authority counsel",
    )
    place = tree.command(
        "place",
        hold_place,
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
    listed = tree.command("list", hold_list, "List holds.", "portvault hold list")
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    shown = tree.command(
        "show", hold_show, "Show a hold and what it covers.", "portvault hold show ID"
    )
    shown.add_argument("hold", type=identity, metavar="HOLD")
    release = tree.command(
        "release",
        hold_release,
        "Release a hold that somebody else has agreed to release; see `portvault approval`.",
        "portvault hold release ID --reason over --approval ID",
    )
    release.add_argument("hold", type=identity, metavar="HOLD")
    release.add_argument("--reason", required=True, help="without names")
    release.add_argument(
        "--approval", type=identity, metavar="ID", help="the approval of hold.release"
    )
