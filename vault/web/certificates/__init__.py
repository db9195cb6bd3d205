"""Certificates as people read and print them."""

import hashlib
from base64 import b64encode
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from aiohttp import hdrs, web

from vault.actions.certificates import Shown, certificate, order_certificate
from vault.domain.certificates import parse_certificate
from vault.web.requests import identity_of, principal_of, vault_of
from vault.web.route import Parameter, Route
from vault.web.templates import load_templates

_ENVIRONMENT = load_templates("vault.web.certificates")
_STYLE = (files("vault.web.certificates") / "templates" / "print.css").read_text(encoding="utf-8")
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def certificate_page(fields: dict[str, Any], note: str, vkey: str) -> web.Response:
    """Return a certificate as a page that prints on paper; it needs nothing from elsewhere."""
    name = "document.html" if "document" in fields else "order.html"
    text = _ENVIRONMENT.get_template(name).render(style=_STYLE, note=note, vkey=vkey, **fields)
    response = web.Response(text=text, content_type="text/html")
    response.headers[hdrs.CONTENT_SECURITY_POLICY] = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return response


# ---- The handlers of certificates: JSON with the signed note, or a page to read and print. ------


async def show_certificate(request: web.Request) -> web.Response:
    """Show the signed certificate of a document's destruction."""
    shown = await certificate(vault_of(request), principal_of(request), identity_of(request))
    return _answer(request, shown)


async def show_order_certificate(request: web.Request) -> web.Response:
    """Show the signed certificate that all documents of an order are destroyed."""
    shown = await order_certificate(vault_of(request), principal_of(request), identity_of(request))
    return _answer(request, shown)


def _answer(request: web.Request, shown: Shown) -> web.Response:
    fields, signer = parse_certificate(shown.note), vault_of(request).signer
    if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
        return certificate_page(fields, shown.note, signer.vkey)
    return web.json_response(
        {
            "certificate": fields,
            "note": shown.note,
            "anchor": asdict(shown.anchor) if shown.anchor else None,
            "handovers": list(signer.handovers),
        }
    )


# ---- The routes of certificates. ----------------------------------------------------------------

_HEADERS = {"Accept": Parameter("text/html for a page to read and print.")}

ROUTES = (
    Route(
        "GET",
        "/v1/documents/{id}/certificate",
        show_certificate,
        "Show the certificate of destruction",
        200,
        "Certificate",
        headers=_HEADERS,
        refusals=(409,),
    ),
    Route(
        "GET",
        "/v1/orders/{id}/certificate",
        show_order_certificate,
        "Show the certificate that all documents of an order are destroyed",
        200,
        "Certificate",
        headers=_HEADERS,
        refusals=(409,),
    ),
)
