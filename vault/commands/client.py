"""Commands for those who use the vault: orders, documents and the log, by its HTTP API."""

import argparse
import asyncio
import sys
from collections import deque
from typing import Any
from urllib.parse import quote

import aiohttp

from vault.client import call, session
from vault.commands.output import facts, lines, show, table
from vault.domain.orders import ENDED, TRANSITIONS, Status

#: Records that are asked for at once while following, and how many pages back at most.
FOLLOW_PAGE, FOLLOW_PAGES_MAX = 200, 50


async def order_create(args: argparse.Namespace) -> None:
    """Open a porting order."""
    fields = {"region": args.region, "customer": args.customer, "numbers": args.number}
    if args.reference:
        fields["customer_reference"] = args.reference
    async with session() as http:
        order = await call(http, "POST", "/v1/orders", json=fields)
    show(order, order["id"], as_json=args.json)


async def order_list(args: argparse.Namespace) -> None:
    """List the newest orders."""
    async with session() as http:
        page = await call(http, "GET", f"/v1/orders?limit={args.limit}")
    columns = ("id", "region", "customer", "status", "created_at")
    show(page["data"], table(page["data"], columns), as_json=args.json)


async def order_show(args: argparse.Namespace) -> None:
    """Show an order with its documents."""
    async with session() as http:
        order = await call(http, "GET", f"/v1/orders/{quote(args.order, safe='')}")
    _show_order(order, args)


def _show_order(order: dict[str, Any], args: argparse.Namespace) -> None:
    text = facts(order)
    if order["documents"]:
        columns = ("id", "kind", "custody", "size_bytes", "stored_at")
        text += "\n\n" + table(order["documents"], columns)
    show(order, text, as_json=args.json)


async def order_end(args: argparse.Namespace) -> None:
    """Move an order to its end, along the carrier's transitions."""
    target = Status.PORTED if args.end == "complete" else Status.CANCELLED
    path = f"/v1/orders/{quote(args.order, safe='')}"
    async with session() as http:
        order = await call(http, "GET", path)
        for status in _way(Status(order["status"]), target):
            order = await call(http, "PATCH", path, json={"status": status.value})
    _show_order(order, args)


def _way(old: Status, new: Status) -> list[Status]:
    """
    Return the shortest way from one status to another; the last step alone where there is none.

    An order that has ended is not reopened on the way: the vault is asked, and refuses.
    """
    if old in ENDED:
        return [] if old is new else [new]
    ways = deque([[old]])
    seen = {old}
    while ways:
        way = ways.popleft()
        if way[-1] is new:
            return way[1:]
        for status in sorted(TRANSITIONS[way[-1]] - seen):
            seen.add(status)
            ways.append([*way, status])
    return [new]


async def document_show(args: argparse.Namespace) -> None:
    """Show a document's metadata and why it is here."""
    async with session() as http:
        document = await call(http, "GET", f"/v1/documents/{quote(args.document, safe='')}")
    why = {f"retention_{name}": value for name, value in document.get("retention", {}).items()}
    show(document, facts({**document, **why}), as_json=args.json)


async def document_shred(args: argparse.Namespace) -> None:
    """Put a document beyond use."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/shred"
    async with session() as http:
        document = await call(http, "POST", path, json={"reason": args.reason})
    show(document, f"beyond use since {document['beyond_use_since']}", as_json=args.json)


async def certificate(args: argparse.Namespace) -> None:
    """Show the signed certificate of a document's destruction."""
    path = f"/v1/documents/{quote(args.document, safe='')}/certificate"
    async with session() as http:
        found = await call(http, "GET", path)
    show(found, found["note"].rstrip("\n"), as_json=args.json)


_SEARCH_COLUMNS = (
    "index",
    "at",
    "phase",
    "principal",
    "action",
    "document",
    "purpose",
    "reference",
    "decision",
    "reason",
    "result",
    "size_bytes",
)
_LOG_COLUMNS = ("at", "phase", "principal", "action", "document", "decision", "reason", "result")


async def log_tail(args: argparse.Namespace) -> None:
    """Show the newest access records, oldest first; `--follow` goes on, in lines."""
    limit = FOLLOW_PAGE if args.follow else args.limit
    query = {"limit": str(limit)}
    query |= {name: value for name in ("region", "document") if (value := getattr(args, name))}
    async with session() as http:
        page = await call(http, "GET", "/v1/access-records", params=query)
        records = page["data"][::-1]
        if not args.follow:
            show(records, table(records, _LOG_COLUMNS), as_json=args.json)
            return
        _show_lines(records[-args.limit :], args)
        await _follow(http, query, {record["id"] for record in records}, args)


async def log_search(args: argparse.Namespace) -> None:
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
        print(f"there are more than {args.limit}; see --limit", file=sys.stderr)
    show(found, table(found, _SEARCH_COLUMNS), as_json=args.json)


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
    lines([r for r in records if r["action"] != "log.read"], _LOG_COLUMNS, as_json=args.json)
