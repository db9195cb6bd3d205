"""Certificates as people read and print them."""

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Any

from aiohttp import hdrs, web

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
