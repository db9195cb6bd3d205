"""Renders the console's pages: templates of this package, everything escaped, no script at all."""

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Any

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader("vault.web.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    # What was compiled stays as it is: a wheel's templates do not change while it runs.
    auto_reload=False,
    cache_size=-1,
)
#: The style stands in the page, and the policy names it by its hash.
STYLE = (files("vault.web.console") / "templates" / "style.css").read_text(encoding="utf-8")
_STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def load_pages() -> None:
    """Compile every template, so that none is read when somebody asks for it."""
    for name in _ENVIRONMENT.list_templates(extensions=["html"]):
        _ENVIRONMENT.get_template(name)


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
