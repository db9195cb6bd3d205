"""Commands for those who use the vault: orders and documents, by its HTTP API."""

import argparse
from collections import deque
from typing import Any
from urllib.parse import quote

from vault.commands.http import call, session
from vault.commands.output import facts, marked, show, tell, time_text
from vault.domain.orders import ENDED, TRANSITIONS, Status

ORDERS_PAGE = 200


async def order_create(args: argparse.Namespace) -> None:
    """Open a porting order."""
    fields = {"region": args.region, "customer": args.customer, "numbers": args.number}
    if args.reference:
        fields["customer_reference"] = args.reference
    names = ("type", "losing_carrier", "gaining_carrier")
    fields |= {name: value for name in names if (value := getattr(args, name))}
    async with session() as http:
        order = await call(http, "POST", "/v1/orders", json=fields)
    _warn(order)
    show(order, order["id"], as_json=args.json)


def _warn(order: dict[str, Any]) -> None:
    """Say on the terminal, beside the answer, what is likely a mistake."""
    for warning in order["warnings"]:
        tell(f"portvault: warning: {warning['detail']}")


async def order_list(args: argparse.Namespace) -> None:
    """List the newest orders, page after page; what is personal stands in no address."""
    names = ("region", "status", "customer", "due_before")
    fields = {name: value for name in names if (value := getattr(args, name))}
    said = {"number": args.number, "customer_reference": args.reference}
    secret = {name: value for name, value in said.items() if value is not None}
    found, cursor = list[dict[str, Any]](), args.cursor
    async with session() as http:
        while len(found) < args.limit:
            query = {"limit": str(min(ORDERS_PAGE, args.limit - len(found)))}
            query |= {"details": "false" if args.brief else "true"}
            query |= {"cursor": cursor} if cursor else {}
            if secret:
                whole = {**fields, **secret}
                page = await call(http, "POST", "/v1/orders/search", params=query, json=whole)
            else:
                page = await call(http, "GET", "/v1/orders", params={**fields, **query})
            found += page["data"]
            if (cursor := page["next_cursor"]) is None:
                break
    shown = [_order_row(order) for order in found]
    show(found, marked(shown, _ORDER_COLUMNS), as_json=args.json)
    for word, why in _UNOPENED.items():
        if number := sum(order["details"] == word for order in found):
            tell(f"portvault: of {number} orders nothing is opened: {why}")
    if cursor is not None:
        tell(f"there are more: --cursor {cursor}")


_ORDER_COLUMNS = (
    *("id", "status", "number", "reference", "documents", "first goes", "region", "customer"),
    "created",
)
_UNOPENED = {
    "limit": "so many orders an hour are allowed, and they were opened",
    "elsewhere": "they may not leave their region for where you read",
    "damaged": "what is kept of their details is damaged: `portvault repair` says what to do",
    "later": "the region's log stands still, or its keys are being sealed; try again",
}


def _order_row(order: dict[str, Any]) -> dict[str, Any]:
    numbers, count = order["numbers_masked"] or [], order["number_count"] or 0
    none = "damaged" if order["details"] == "damaged" else "-"
    return {
        **order,
        "number": (numbers[0] if numbers else none) + (f" +{count - 1}" if count > 1 else ""),
        "reference": order["customer_reference"],
        "documents": order["document_count"],
        "first goes": (order["due_at"] or "-")[:10],
        "created": order["created_at"][:10],
    }


async def order_show(args: argparse.Namespace) -> None:
    """Show an order with its documents."""
    async with session() as http:
        order = await call(http, "GET", f"/v1/orders/{quote(args.order, safe='')}")
    _show_order(order, args)


async def order_numbers(args: argparse.Namespace) -> None:
    """Show an order's full numbers, one a line, to who says why."""
    headers = {"Access-Purpose": args.purpose}
    if args.reference:
        headers["Access-Reference"] = args.reference
    path = f"/v1/orders/{quote(args.order, safe='')}/numbers"
    async with session() as http:
        found = await call(http, "GET", path, headers=headers)
    show(found, "\n".join(found["numbers"]), as_json=args.json)


def _show_order(order: dict[str, Any], args: argparse.Namespace) -> None:
    text = facts({name: value for name, value in order.items() if name != "warnings"})
    if order["documents"]:
        columns = ("id", "kind", "custody", "size_bytes", "stored_at")
        text += "\n\n" + marked(order["documents"], columns)
    show(order, text, as_json=args.json)


async def order_correct(args: argparse.Namespace) -> None:
    """Correct what an order says."""
    said = {
        "numbers": args.number,
        "customer_reference": args.reference,
        "type": args.type,
        "losing_carrier": args.losing_carrier,
        "gaining_carrier": args.gaining_carrier,
        "customer": args.customer,
    }
    fields = {name: value for name, value in said.items() if value is not None}
    path = f"/v1/orders/{quote(args.order, safe='')}/actions/correct"
    async with session() as http:
        order = await call(http, "POST", path, json=fields)
    _warn(order)
    _show_order(order, args)


async def order_move(args: argparse.Namespace) -> None:
    """Move an order one step; which steps there are is the vault's to say."""
    fields = {"status": args.status, **({"effective_at": args.at} if args.at else {})}
    async with session() as http:
        order = await call(http, "PATCH", f"/v1/orders/{quote(args.order, safe='')}", json=fields)
    _show_order(order, args)


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
    show(document, facts({**document, **kept_by(document), **why}), as_json=args.json)


def kept_by(document: dict[str, Any]) -> dict[str, str | None]:
    """Return what holds and restricts a document, a sentence each."""
    holds = ", ".join(hold["id"] for hold in document["holds"])
    if document["held"] and not holds:
        holds = "not for your role to see"
    restricted = None
    if found := document["restriction"]:
        restricted = f"since {time_text(found['since'])}"
        # Who and why are for those who may read holds.
        if found["reason"] is not None:
            restricted += f", by {found.get('by_name') or found['by']}: {found['reason']}"
    return {"holds": holds or None, "restriction": restricted}


async def document_shred(args: argparse.Namespace) -> None:
    """Put a document beyond use."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/shred"
    async with session() as http:
        said = {
            "ground": args.ground,
            "approval": args.approval,
            "replaced_by": args.replaced_by,
        }
        fields = {name: value for name, value in said.items() if value is not None}
        document = await call(http, "POST", path, json={"reason": args.reason, **fields})
    show(document, f"beyond use since {time_text(document['beyond_use_since'])}", as_json=args.json)


async def document_correct(args: argparse.Namespace) -> None:
    """Say that a document is of another kind."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/correct"
    fields = {"kind": args.kind} | ({"approval": args.approval} if args.approval else {})
    async with session() as http:
        document = await call(http, "POST", path, json=fields)
    show(document, document["retention"]["reason"], as_json=args.json)


async def certificate(args: argparse.Namespace) -> None:
    """Show the signed certificate of a document's destruction."""
    path = f"/v1/documents/{quote(args.document, safe='')}/certificate"
    async with session() as http:
        found = await call(http, "GET", path)
    show(found, found["note"].rstrip("\n"), as_json=args.json, exact=True)
