"""Finding orders by a telephone number, which stands in a body and in no address."""

from aiohttp import web

from vault.actions.number_index import find_orders
from vault.web.requests import (
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
