"""Commands for those who look into the access log, by the vault's HTTP API."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from keys.errors import IntegrityError
from keys.notes.signing import trust
from vault.commands.content import save
from vault.commands.http import call, check, session
from vault.commands.output import lines, show, table, tell
from vault.domain.records import parse_receipt
from vault.domain.tiles import check_proof
from vault.errors import InvalidRequestError, VaultError

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
