"""The routes of porting orders."""

from datetime import datetime
from typing import Any

from aiohttp import hdrs, web

from vault.actions import correct, order_list, orders
from vault.actions import order_list as order_numbers
from vault.actions.once import encode_cursor
from vault.actions.order_list import Listed, Sought
from vault.actions.orders import OrderView
from vault.domain.access import Purpose
from vault.domain.orders import Order, Status
from vault.domain.records import HEADER as RECEIPT
from vault.domain.records import mask_number
from vault.domain.text import parse_time
from vault.errors import InvalidRequestError
from vault.web.documents import document_json
from vault.web.requests import (
    answer,
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    query_flag,
    query_time,
    time_cursor,
    time_of,
    vault_of,
)
from vault.web.route import (
    BOOLEAN,
    IDEMPOTENCY,
    PAGE,
    REGION,
    Parameter,
    Route,
    one_of,
    recovered_json,
    time_text,
)

#: So many of an order's numbers stand in a list.
LISTED_MAX = 3


def order_summary(order: Order) -> dict[str, Any]:
    """Return what is nothing personal of an order."""
    return {
        "id": str(order.id),
        "region": order.region,
        "customer": order.customer,
        "status": order.status.value,
        "created_at": time_text(order.created_at),
        "changed_at": time_text(order.changed_at),
        "ended_at": time_text(order.ended_at),
        **recovered_json(order.recovered_at, order.not_known),
    }


def order_page(found: list[Listed], limit: int) -> dict[str, Any]:
    """Return a page of orders; one more than the page takes says that another follows."""
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].order.created_at, page[-1].order.id) if more else None
    return {"data": [_listed_json(item) for item in page], "next_cursor": cursor}


def _listed_json(item: Listed) -> dict[str, Any]:
    details = item.details
    return {
        **order_summary(item.order),
        "document_count": item.documents,
        "due_at": time_text(item.due_at),
        "details": item.shown.value,
        "customer_reference": details and details.customer_reference,
        "number_count": details and len(details.numbers),
        "numbers_masked": details and [mask_number(one) for one in details.numbers[:LISTED_MAX]],
    }


def order_json(view: OrderView) -> dict[str, Any]:
    """Return an order with its numbers masked and its documents."""
    details = view.details
    return {
        **order_summary(view.order),
        "details": "kept" if details else "gone",
        "details_gone_at": time_text(view.order.details_gone_at),
        "customer_reference": details and details.customer_reference,
        "type": details and details.type,
        "losing_carrier": details and details.losing_carrier,
        "gaining_carrier": details and details.gaining_carrier,
        "numbers_masked": details and [mask_number(number) for number in details.numbers],
        "documents": [
            document_json(document, view.standings.get(document.id)) for document in view.documents
        ],
        "warnings": [{"code": said.code, "detail": said.detail} for said in view.warnings],
    }


async def create_order(request: web.Request) -> web.Response:
    """Open a porting order."""
    fields = await json_fields(
        request,
        region=str,
        customer=str,
        customer_reference=str,
        numbers=list,
        type=str,
        losing_carrier=str,
        gaining_carrier=str,
    )
    numbers = needed(fields, "numbers")
    if not all(isinstance(number, str) for number in numbers):
        raise InvalidRequestError("numbers must be a list of strings")
    view = await orders.create_order(
        vault_of(request),
        principal_of(request),
        region=needed(fields, "region"),
        customer=needed(fields, "customer"),
        numbers=numbers,
        customer_reference=fields.get("customer_reference"),
        port_type=fields.get("type"),
        losing_carrier=fields.get("losing_carrier"),
        gaining_carrier=fields.get("gaining_carrier"),
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    location = {hdrs.LOCATION: f"/v1/orders/{view.order.id}"}
    return await answer(request, order_json(view), status=201, headers=location)


async def show_order(request: web.Request) -> web.Response:
    """Show an order, its numbers masked, with its documents."""
    view = await orders.show_order(vault_of(request), principal_of(request), identity_of(request))
    return await answer(request, order_json(view))


async def change_order(request: web.Request) -> web.Response:
    """Move an order along the carrier's status axis."""
    fields = await json_fields(request, status=str, effective_at=str)
    try:
        status = Status(needed(fields, "status"))
    except ValueError:
        raise InvalidRequestError(f"status must be one of {', '.join(Status)}") from None
    view = await orders.change_order(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        status,
        _moment(fields.get("effective_at")),
    )
    return await answer(request, order_json(view))


async def correct_order(request: web.Request) -> web.Response:
    """Correct an order's details; what is not named stays, and "" takes it away."""
    fields = await json_fields(
        request,
        numbers=list,
        customer_reference=str,
        type=str,
        losing_carrier=str,
        gaining_carrier=str,
        customer=str,
    )
    numbers = fields.get("numbers")
    if numbers is not None and not all(isinstance(number, str) for number in numbers):
        raise InvalidRequestError("numbers must be a list of strings")
    view = await correct.correct_order(
        vault_of(request), principal_of(request), identity_of(request), correct.Changed(**fields)
    )
    return await answer(request, order_json(view))


def _moment(text: str | None) -> datetime | None:
    """Return a time as it was sent; whether it may be that time is the action's to say."""
    try:
        return parse_time(text) if text is not None else None
    except ValueError:
        raise InvalidRequestError(
            "effective_at must be a time like 2026-03-01T12:00:00Z, of the years 1900 to 2199"
        ) from None


# ---- The handlers of lists of orders, and of numbers and references, which stand in no address.

#: What orders are listed by where it is nothing personal: it stands in the address.
ORDER_FILTERS = {
    "region": Parameter("Only of this region.", REGION),
    "status": Parameter("Only where the carrier says this.", one_of(Status)),
    "customer": Parameter("Only of this customer."),
    "due_before": Parameter("Only with a document that goes before this time or date."),
}
DETAILS = {
    "details": Parameter(
        "Whether masked numbers and references are opened, which counts for the limits.", BOOLEAN
    )
}


async def list_orders(request: web.Request) -> web.Response:
    """List the orders of one's regions, newest first; a filter that is mistyped is refused."""
    query = request.query
    if unknown := set(query) - {*ORDER_FILTERS, *DETAILS, "cursor", "limit"}:
        raise InvalidRequestError(
            f"there is no filter {min(unknown)!r}; known: {', '.join(ORDER_FILTERS)}"
        )
    sought = Sought(
        region=query.get("region"),
        status=_status(query.get("status")),
        customer=query.get("customer"),
        due_before=query_time(request, "due_before"),
    )
    return await _page(request, sought)


async def search_orders(request: web.Request) -> web.Response:
    """List one's orders that move a number, or have a reference, newest first."""
    fields = await json_fields(
        request,
        region=str,
        number=str,
        customer_reference=str,
        status=str,
        customer=str,
        due_before=str,
    )
    number, reference = fields.get("number"), fields.get("customer_reference")
    if number is None and reference is None:
        raise InvalidRequestError("say a number or the reference of a customer")
    sought = Sought(
        region=needed(fields, "region"),
        status=_status(fields.get("status")),
        customer=fields.get("customer"),
        due_before=time_of("due_before", fields.get("due_before")),
        number=number,
        reference=reference,
    )
    return await _page(request, sought)


def _status(text: str | None) -> Status | None:
    if text is not None and text not in list(Status):
        raise InvalidRequestError(f"status must be one of {', '.join(Status)}")
    return Status(text) if text is not None else None


async def _page(request: web.Request, sought: Sought) -> web.Response:
    limit = page_limit(request)
    found = await order_list.list_orders(
        vault_of(request),
        principal_of(request),
        sought,
        time_cursor(request),
        limit,
        details=query_flag(request, "details"),
    )
    return web.json_response(order_page(found, limit))


async def read_numbers(request: web.Request) -> web.Response:
    """Hand out an order's full numbers to who says why."""
    found = await order_numbers.read_numbers(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        purpose=request.headers.get("Access-Purpose"),
        reference=request.headers.get("Access-Reference"),
    )
    shown = {"order": str(found.order), "numbers": list(found.numbers)}
    return web.json_response(shown, headers={RECEIPT: found.receipt})


# ---- Orders. ------------------------------------------------------------------------------------

ROUTES = (
    Route(
        "POST",
        "/v1/orders",
        create_order,
        "Open a porting order",
        201,
        "Order",
        body="NewOrder",
        headers=IDEMPOTENCY,
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/orders",
        list_orders,
        "List porting orders, newest first",
        200,
        "OrderPage",
        query={**ORDER_FILTERS, **DETAILS, **PAGE},
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/orders/search",
        search_orders,
        "List the porting orders that move a number or have a reference, newest first",
        200,
        "OrderPage",
        body="OrderSearch",
        query={**DETAILS, **PAGE},
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/orders/{id}",
        show_order,
        "Show a porting order",
        200,
        "Order",
        refusals=(409, 451),
    ),
    Route(
        "GET",
        "/v1/orders/{id}/numbers",
        read_numbers,
        "Read an order's full numbers for a stated purpose",
        200,
        "OrderNumbers",
        headers={
            "Access-Purpose": Parameter("Why it is read.", one_of(Purpose), required=True),
            "Access-Reference": Parameter("The ticket or order that some purposes need."),
        },
        refusals=(409, 410, 422, 451),
    ),
    Route(
        "POST",
        "/v1/orders/{id}/actions/correct",
        correct_order,
        "Correct what an order says: numbers, reference, carriers",
        200,
        "Order",
        body="OrderCorrection",
        refusals=(409, 422, 423, 451),
    ),
    Route(
        "PATCH",
        "/v1/orders/{id}",
        change_order,
        "Move a porting order along the carrier's status axis",
        200,
        "Order",
        body="OrderChange",
        refusals=(409, 422, 451),
    ),
)
