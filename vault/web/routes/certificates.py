"""The routes of certificates."""

from vault.web import certificate_api as api
from vault.web.routes.route import Route
from vault.web.shapes import Parameter

_HEADERS = {"Accept": Parameter("text/html for a page to read and print.")}

ROUTES = (
    Route(
        "GET",
        "/v1/documents/{id}/certificate",
        api.show_certificate,
        "Show the certificate of destruction",
        200,
        "Certificate",
        headers=_HEADERS,
        refusals=(409,),
    ),
    Route(
        "GET",
        "/v1/orders/{id}/certificate",
        api.show_order_certificate,
        "Show the certificate that all documents of an order are destroyed",
        200,
        "Certificate",
        headers=_HEADERS,
        refusals=(409,),
    ),
)
