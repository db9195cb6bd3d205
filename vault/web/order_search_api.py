"""The handlers of what shows or takes telephone numbers: neither stands in an address or a log."""

from aiohttp import web

from vault.actions import order_numbers
from vault.actions.number_index import find_orders
from vault.domain.receipts import HEADER as RECEIPT
from vault.web.requests import (
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    time_cursor,
    vault_of,
)
from vault.web.schemas import order_page


async def search_orders(request: web.Request) -> web.Response:
    """List one's orders that move a number, newest first."""
    fields = await json_fields(request, region=str, number=str)
    region, number = needed(fields, "region"), needed(fields, "number")
    limit = page_limit(request)
    found = await find_orders(
        vault_of(request), principal_of(request), region, number, time_cursor(request), limit + 1
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
