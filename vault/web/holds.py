"""The API of holds: place, list, show and release them."""

from typing import Any
from uuid import UUID

from aiohttp import web

from vault.actions import holds as hold
from vault.actions.holds import HoldView
from vault.actions.once import encode_cursor
from vault.domain.holds import Hold, Targets
from vault.errors import InvalidRequestError
from vault.web.requests import (
    answer,
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    time_cursor,
    vault_of,
)
from vault.web.route import recovered_json, time_text


def hold_json(hold: Hold) -> dict[str, Any]:
    """Return a hold without what it covers."""
    return {
        "id": str(hold.id),
        "region": hold.region,
        "reason": hold.reason,
        "authority": hold.authority,
        "reference": hold.reference,
        "placed_by": hold.placed_by,
        "placed_at": time_text(hold.placed_at),
        "released_by": hold.released_by,
        "release_reason": hold.release_reason,
        "approved_by": hold.approved_by,
        "released_at": time_text(hold.released_at),
        **recovered_json(hold.recovered_at, hold.not_known),
    }


def hold_view_json(view: HoldView) -> dict[str, Any]:
    """Return a hold with what it covers."""
    return {
        **hold_json(view.hold),
        "documents": [str(document) for document in view.targets.documents],
        "orders": [str(order) for order in view.targets.orders],
        "customers": list(view.targets.customers),
    }


async def place_hold(request: web.Request) -> web.Response:
    """Place a hold on documents, orders and customers."""
    fields = await json_fields(
        request,
        region=str,
        reason=str,
        authority=str,
        reference=str,
        documents=list,
        orders=list,
        customers=list,
    )
    customers = fields.get("customers") or []
    if not all(isinstance(customer, str) for customer in customers):
        raise InvalidRequestError("customers must be a list of ids")
    view = await hold.place_hold(
        vault_of(request),
        principal_of(request),
        region=needed(fields, "region"),
        reason=needed(fields, "reason"),
        authority=needed(fields, "authority"),
        reference=fields.get("reference"),
        targets=Targets(_ids(fields, "documents"), _ids(fields, "orders"), tuple(customers)),
    )
    return await answer(request, hold_view_json(view), status=201)


def _ids(fields: dict[str, Any], name: str) -> tuple[UUID, ...]:
    return tuple(_id(name, text) for text in fields.get(name) or [])


def _maybe_id(fields: dict[str, Any], name: str) -> UUID | None:
    return _id(name, fields[name]) if fields.get(name) is not None else None


def _id(name: str, text: object) -> UUID:
    try:
        return UUID(text) if isinstance(text, str) else UUID("")
    except ValueError:
        raise InvalidRequestError(f"{name} must hold ids") from None


async def list_holds(request: web.Request) -> web.Response:
    """List holds, newest first."""
    limit = page_limit(request)
    found = await hold.list_holds(
        vault_of(request), principal_of(request), time_cursor(request), limit + 1
    )
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].placed_at, page[-1].id) if more else None
    return await answer(
        request, {"data": [hold_json(item) for item in page], "next_cursor": cursor}
    )


async def show_hold(request: web.Request) -> web.Response:
    """Show a hold and what it covers."""
    view = await hold.show_hold(vault_of(request), principal_of(request), identity_of(request))
    return await answer(request, hold_view_json(view))


async def release_hold(request: web.Request) -> web.Response:
    """Release a hold that somebody else has agreed to release."""
    fields = await json_fields(request, reason=str, approval=str)
    approval = fields.get("approval")
    view = await hold.release_hold(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        needed(fields, "reason"),
        _id("approval", approval) if approval else None,
    )
    return await answer(request, hold_view_json(view))
