"""`portvault log`: look into the access log, over HTTP. What proves the log is in `log_proofs`."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from keys.errors import IntegrityError
from keys.notes.signing import trust
from vault.commands.documents import save
from vault.commands.http import call, check, session
from vault.commands.output import lines, show, table, tell
from vault.commands.parser import SUMMARIES, Tree, count, identity
from vault.domain.access import Action, Purpose
from vault.domain.records import parse_receipt
from vault.domain.regions import REGIONS
from vault.domain.tiles import check_proof
from vault.errors import InvalidRequestError, VaultError

# ---- Commands for those who look into the access log, by the vault's HTTP API. ------------------

#: Records that are asked for at once while following, and how many pages back at most.
FOLLOW_PAGE, FOLLOW_PAGES_MAX = 200, 50

_SEARCH_COLUMNS = (
    "index",
    "at",
    "phase",
    "who",
    "action",
    "document",
    "purpose",
    "reference",
    "decision",
    "reason",
    "result",
    "size_bytes",
)
#: What a question is about, without what all of its answers have in common.
_TRANSFER_COLUMNS = (
    *("index", "at", "phase", "who", "action", "document", "region", "region_to", "basis"),
    *("purpose", "decision", "reason"),
)
_PURPOSE_COLUMNS = (
    *("index", "at", "who", "action", "document", "order", "reference", "outcome"),
    "outcome_bytes",
)
_LOG_COLUMNS = (
    "index",
    "at",
    "phase",
    "who",
    "action",
    "document",
    "decision",
    "reason",
    "result",
)


async def tail(args: argparse.Namespace) -> None:
    """Show the newest access records, oldest first; `--follow` goes on, in lines."""
    limit = FOLLOW_PAGE if args.follow else args.limit
    query = {"limit": str(limit)}
    query |= {name: value for name in ("region", "document") if (value := getattr(args, name))}
    async with session() as http:
        page = await call(http, "GET", "/v1/access-records", params=query)
        records = page["data"][::-1]
        if not args.follow:
            show(records, table(_marked(records), _LOG_COLUMNS), as_json=args.json)
            return
        _show_lines(records[-args.limit :], args)
        await _follow(http, query, {record["id"] for record in records}, args)


async def search(args: argparse.Namespace) -> None:
    """Show every record that fits, newest first, page after page."""
    names = ("region", "document", "order", "principal", "purpose", "action")
    query = {name: value for name in names if (value := getattr(args, name))}
    query |= {name: "true" for name in ("refused", "transfers") if getattr(args, name)}
    query |= {name: value for name, value in (("from", args.since), ("to", args.until)) if value}
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] | None = {}
    async with session() as http:
        while cursor is not None and len(found) < args.limit:
            limit = {"limit": str(min(FOLLOW_PAGE, args.limit - len(found)))}
            page = await call(
                http, "GET", "/v1/access-records", params={**query, **limit, **cursor}
            )
            found += page["data"]
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
    if cursor is not None:
        tell(f"there are more than {args.limit}; see --limit")
    columns: tuple[str, ...] = _SEARCH_COLUMNS
    if args.transfers:
        columns = _TRANSFER_COLUMNS
    elif args.purpose:
        columns = _PURPOSE_COLUMNS
    show(found, table(_marked(found), columns), as_json=args.json)


async def _follow(
    http: aiohttp.ClientSession,
    query: dict[str, str],
    seen: set[str],
    args: argparse.Namespace,
) -> None:
    """Show what is new, for ever. Readings of the log are left out: each look here is one."""
    while True:
        await asyncio.sleep(args.interval)
        pages = await _pages(http, query, seen)
        _show_lines([record for record in reversed(pages) if record["id"] not in seen], args)
        # What came before the oldest of these never comes again.
        seen = {record["id"] for record in pages}


async def _pages(
    http: aiohttp.ClientSession, query: dict[str, str], seen: set[str]
) -> list[dict[str, Any]]:
    """Return records, newest first, back to a page where some were seen before."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(FOLLOW_PAGES_MAX):
        page = await call(http, "GET", "/v1/access-records", params={**query, **cursor})
        found += page["data"]
        if page["next_cursor"] is None or any(record["id"] in seen for record in page["data"]):
            break
        cursor = {"cursor": page["next_cursor"]}
    return found


def _show_lines(records: list[dict[str, Any]], args: argparse.Namespace) -> None:
    shown = [record for record in records if record["action"] != "log.read"]
    lines(shown if args.json else _marked(shown), _LOG_COLUMNS, as_json=args.json)


def _marked(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records for a table: who by name, and of each that waits to be published that."""
    return [
        {
            **record,
            "who": record.get("principal_name", record["principal"]),
            "index": _place(record) + (" (waits)" if record.get("waiting") else ""),
        }
        for record in records
    ]


def _place(record: dict[str, Any]) -> str:
    return "-" if record["index"] is None else str(record["index"])


async def export(args: argparse.Namespace) -> None:
    """Write a stretch of the log into a file, which appears when it is whole."""
    query = {"region": args.region, "format": args.format}
    query |= {name: value for name, value in (("from", args.since), ("to", args.until)) if value}
    async with (
        session() as http,
        http.get("/v1/access-records/export", params=query, allow_redirects=False) as response,
    ):
        await check(response)
        size = await save(response, Path(args.output))
    show({"file": args.output, "size_bytes": size}, args.output, as_json=args.json)


async def receipt(args: argparse.Namespace) -> None:
    """Ask for the proof that a reading was recorded, and check it against the receipt."""
    try:
        held = parse_receipt(args.file.read_text(encoding="ascii"))
    except UnicodeDecodeError:
        raise InvalidRequestError(
            f"{args.file} is no receipt, which is text: name the file that `--receipt` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{args.file} is no receipt: {error}") from None
    place = f"/v1/log/{held.region}"
    async with session() as http:
        keys = await call(http, "GET", f"{place}/keys")
        async with http.get(f"{place}/inclusion?record={held.record}") as response:
            await check(response)
            proof = await response.text()
    key = args.key or keys["key"]
    if Path(key).is_file():
        key = Path(key).read_text(encoding="ascii").strip()
    opener = trust(key, keys["handovers"])
    try:
        index, size = check_proof(proof, held.leaf, opener, held.region)
    except (IntegrityError, ValueError):
        raise VaultError(
            "the vault cannot prove that it recorded this reading: keep the receipt as evidence"
        ) from None
    shown = {"region": held.region, "record": str(held.record), "index": index, "size": size}
    text = f"{held.region}: record {held.record} is number {index} of {size} in the log"
    show(shown, text, as_json=args.json)


#: The auditor's own, which is slow to import for a help; a test compares the two.
WAITING_SECONDS_MAX = 60.0


def add(tree: Tree) -> None:
    """Add the commands of the access log."""
    group = tree.group("log", SUMMARIES["log"], "portvault log verify")
    tail_command = group.command(
        "tail", tail, "Show the newest records.", "portvault log tail --follow"
    )
    tail_command.add_argument("--region", choices=REGIONS, help="needed with several")
    tail_command.add_argument("--document", type=identity, help="only of this document")
    tail_command.add_argument("--limit", type=count, default=20, help="1 to 200 (20)")
    tail_command.add_argument(
        "--follow", action="store_true", help="go on until stopped; leaves out readings of the log"
    )
    tail_command.add_argument("--interval", type=float, default=2.0, help=argparse.SUPPRESS)
    search_command = group.command(
        "search",
        search,
        "Find records: about a document, by a person, for a purpose, refused, out of the region.",
        "portvault log search --order ID --action document.read",
    )
    search_command.add_argument("--region", choices=REGIONS, help="needed with several")
    search_command.add_argument("--document", type=identity, help="everything about this document")
    search_command.add_argument("--order", type=identity, help="everything about this order")
    search_command.add_argument(
        "--principal", help="everything this one did: an id, a token's label, a person's name"
    )
    search_command.add_argument(
        "--purpose",
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help=f"reads for one of {', '.join(Purpose)}, and whether bytes went out",
    )
    search_command.add_argument(
        "--action",
        metavar="ACTION",
        choices=sorted(Action),
        help=f"only this action: {', '.join(sorted(Action))}",
    )
    search_command.add_argument("--refused", action="store_true", help="only refusals")
    search_command.add_argument(
        "--transfers",
        action="store_true",
        help="only what left its region, with where to and the basis",
    )
    search_command.add_argument(
        "--from", dest="since", metavar="TIME", help="from this time or date (UTC)"
    )
    search_command.add_argument(
        "--to", dest="until", metavar="TIME", help="before this time or date (UTC)"
    )
    search_command.add_argument("--limit", type=count, default=1000, help="so many at most (1000)")
    _add_export(group)
    _add_verify(group)
    _add_witness(group)
    group.command(
        "key",
        _key,
        "Print the public key that signs the log and the certificates.",
        "portvault log key",
    )
    forget = group.command(
        "forget-name",
        _forget,
        "Forget what a principal was called, a label or a name; its id stays in the log.",
        "portvault log forget-name person:0123456789abcdef0123456789abcdef",
    )
    forget.add_argument("principal", metavar="PRINCIPAL", help="its id, as the log has it")
    receipt_command = group.command(
        "receipt",
        receipt,
        "Prove that a reading is in the log, from the receipt that was given for it.",
        "portvault log receipt scan.receipt --key portvault.vkey",
    )
    receipt_command.add_argument(
        "file", type=Path, metavar="RECEIPT", help="what `get --receipt` kept"
    )
    receipt_command.add_argument(
        "--key", metavar="VKEY", help="the log's key, or a file that holds it"
    )
    rotate = group.command(
        "rotate-key",
        _rotate,
        "Replace the key that signs the log: begin, and later finish.",
        "portvault log rotate-key --finish",
    )
    how = rotate.add_mutually_exclusive_group()
    how.add_argument("--finish", action="store_true", help="let the new key sign alone")
    how.add_argument(
        "--stolen", action="store_true", help="replace the key at once, and say that it was stolen"
    )
    how.add_argument("--revoke", metavar="VKEY", help="say that an earlier key was stolen")


async def _verify(args: argparse.Namespace) -> None:
    from vault.commands import log_proofs

    await log_proofs.verify(args)


async def _key(args: argparse.Namespace) -> None:
    from vault.commands import log_proofs

    await log_proofs.key(args)


async def _forget(args: argparse.Namespace) -> None:
    from vault.commands import log_proofs

    await log_proofs.forget(args)


async def _rotate(args: argparse.Namespace) -> None:
    from vault.commands import log_proofs

    await log_proofs.rotate(args)


async def _witness(args: argparse.Namespace) -> None:
    from vault.commands import witness

    await witness.witness(args)


def _add_export(group: Tree) -> None:
    export_command = group.command(
        "export",
        export,
        "Write the log into a file that proves itself, or into a table for people.",
        "portvault log export --region uk --from 2025-01-01 --to 2025-04-01 -o quarter.jsonl",
    )
    export_command.add_argument("--region", choices=REGIONS, required=True)
    export_command.add_argument(
        "--from", dest="since", metavar="TIME", help="from this time or date (UTC)"
    )
    export_command.add_argument(
        "--to", dest="until", metavar="TIME", help="before this time or date (UTC)"
    )
    export_command.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    export_command.add_argument("-o", "--output", metavar="FILE", required=True)


def _add_verify(group: Tree) -> None:
    verify = group.command(
        "verify",
        _verify,
        "Check that nothing was edited: in the database, a running vault, or a file.",
        "portvault log verify --file quarter.jsonl --key portvault.vkey --held last.checkpoint",
    )
    verify.add_argument("--region", choices=REGIONS)
    source = verify.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, metavar="FILE", help="what `log export` wrote")
    source.add_argument("--server", metavar="URL", help="the log that a running vault shows")
    verify.add_argument("--key", metavar="VKEY", help="the public key, or a file that holds it")
    verify.add_argument(
        "--held",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="a checkpoint that you kept from before; may be repeated",
    )
    verify.add_argument(
        "--witness",
        metavar="VKEY",
        action="append",
        default=[],
        help="a witness that you trust (file and server; else `witnesses` of the settings)",
    )
    verify.add_argument(
        "--waiting-max",
        type=float,
        default=WAITING_SECONDS_MAX,
        metavar="SECONDS",
        help="how long a record may wait to be published (file and server; 60)",
    )


def _add_witness(group: Tree) -> None:
    witness = group.command(
        "witness",
        _witness,
        "Remember the log's checkpoints, cosign what follows them, and shout at what does not.",
        "portvault log witness --server https://vault.example --region uk --state /var/lib/witness",
    )
    witness.add_argument("--server", metavar="URL", help="the vault; its token is PORTVAULT_TOKEN")
    witness.add_argument("--region", choices=REGIONS, action="append", help="may be repeated")
    witness.add_argument("--state", type=Path, metavar="DIR", required=True)
    witness.add_argument("--key", metavar="VKEY", help="the log's key (the one it shows at first)")
    witness.add_argument("--name", help="of this witness (witness.HOST)")
    witness.add_argument("--interval", type=float, default=60.0, help="seconds between looks (60)")
    witness.add_argument(
        "--still-max",
        type=float,
        default=WAITING_SECONDS_MAX,
        metavar="SECONDS",
        help="how long the log may stay as it is though these looks are recorded in it (60)",
    )
    witness.add_argument("--once", action="store_true", help="look once")
    witness.add_argument("--print-key", action="store_true", help="print its public key, no more")
