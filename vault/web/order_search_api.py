"""The handlers of lists of orders, and of numbers and references, which stand in no address."""

from aiohttp import web

from vault.actions import order_list
from vault.actions import order_list as order_numbers
from vault.actions.order_list import Sought
from vault.domain.orders import Status
from vault.domain.records import HEADER as RECEIPT
from vault.errors import InvalidRequestError
from vault.web.requests import (
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
from vault.web.schemas import order_page
from vault.web.shapes import BOOLEAN, REGION, Parameter, one_of

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
