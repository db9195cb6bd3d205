"""The routes of porting orders."""

from vault.domain.access import Purpose
from vault.web import api
from vault.web.order_search_api import (
    DETAILS,
    ORDER_FILTERS,
    list_orders,
    read_numbers,
    search_orders,
)
from vault.web.routes.route import IDEMPOTENCY, PAGE, Route
from vault.web.shapes import Parameter, one_of

ROUTES = (
    Route(
        "POST",
        "/v1/orders",
        api.create_order,
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
        api.show_order,
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
        api.correct_order,
        "Correct what an order says: numbers, reference, carriers",
        200,
        "Order",
        body="OrderCorrection",
        refusals=(409, 422, 423, 451),
    ),
    Route(
        "PATCH",
        "/v1/orders/{id}",
        api.change_order,
        "Move a porting order along the carrier's status axis",
        200,
        "Order",
        body="OrderChange",
        refusals=(409, 422, 451),
    ),
)
