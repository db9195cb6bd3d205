"""The handlers of certificates: JSON with the signed note, or a page to read and print."""

from dataclasses import asdict

from aiohttp import hdrs, web

from vault.actions.certificates import Shown, certificate, order_certificate
from vault.domain.certificates import parse_certificate
from vault.web.certificates import certificate_page
from vault.web.requests import identity_of, principal_of, vault_of


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
