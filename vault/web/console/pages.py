"""Renders the console's pages: templates of this package, everything escaped, no script at all."""

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Any

from aiohttp import hdrs, web

from vault.web.templates import load_templates

_ENVIRONMENT = load_templates("vault.web.console")
#: The style stands in the page, and the policy names it by its hash.
STYLE = (files("vault.web.console") / "templates" / "style.css").read_text(encoding="utf-8")
_STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def page(
    name: str, *, status: int = 200, forms_to: tuple[str, ...] = (), **values: Any
) -> web.Response:
    """Return a page; `forms_to` are the origins that its forms may lead on to."""
    to = " ".join(["'self'", *forms_to])
    text = _ENVIRONMENT.get_template(f"{name}.html").render(style=STYLE, **values)
    response = web.Response(status=status, text=text, content_type="text/html")
    response.headers[hdrs.CONTENT_SECURITY_POLICY] = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        f"form-action {to}; frame-ancestors 'none'"
    )
    # With none at all, browsers hide from us, too, which page a form comes from.
    response.headers["Referrer-Policy"] = "same-origin"
    return response
