"""
The console's handlers: sign-in, the page of who is signed in, and the log-out.

The session's cookie is read here and nowhere else: the API knows none. A form is taken only from
the console's own pages, by the session's token in it and by what the browser says of its origin.
"""

import hashlib
import hmac
from base64 import b64encode
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from vault.actions.access import reader_region
from vault.actions.people import (
    BEGUN_SECONDS,
    begin_sign_in,
    find_session,
    finish_sign_in,
    refused_sign_in,
    sign_out,
    signed_out_elsewhere,
)
from vault.context import Vault
from vault.domain.access import Role
from vault.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError, VaultError
from vault.sql.access import Session
from vault.web.problems import INTERNAL, told, type_of
from vault.web.requests import form_fields, vault_of
from vault.web.route import Route, time_text
from vault.web.templates import load_templates

# ---- Renders the console's pages: templates of this package, everything escaped, no script at
# all.

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


# ---- Handlers. ----------------------------------------------------------------------------------

SESSION, BEGUN = "portvault-session", "portvault-sign-in"
_COOKIE_LENGTH_MAX = 128

_WHAT = {
    Role.PORTING: "You open orders, bring documents in and read them for a stated purpose.",
    Role.COMPLIANCE: "You read the access log and certificates. You never see content.",
    Role.WITNESS: "You cosign checkpoints of the access log. You never see a record.",
    Role.AUDITOR: "You take the access log away and check it. You never see content.",
    Role.DPO: "You look after holds, requests and restrictions, and read content only when "
    "somebody else has agreed to it.",
    Role.ADMIN: "You look after tokens, policy and keys. You never see content.",
}


async def show_console(request: web.Request) -> web.Response:
    """Show who is signed in, or how to sign in."""
    vault = vault_of(request)
    session = await _session(request)
    if session is None:
        return page("signed_out", configured=vault.people is not None)
    principal = session.person.principal
    origin = _provider_origin(vault)
    return page(
        "signed_in",
        forms_to=(origin,) if origin else (),
        shown_as=session.person.shown_as,
        logged_as=session.person.name,
        role=principal.role,
        regions=sorted(principal.regions),
        located=reader_region(vault, principal),
        principal=principal.id,
        expires_at=time_text(session.expires_at),
        until=f"{session.expires_at:%d %B %Y, %H:%M} UTC",
        what=_WHAT.get(Role(principal.role), ""),
        csrf=session.csrf,
    )


async def go_to_console(request: web.Request) -> web.Response:
    """Send whoever opens the vault's bare address to the console."""
    del request
    return web.Response(status=303, headers={"Location": "/console"})


async def begin(request: web.Request) -> web.Response:
    """Send the browser to the identity provider."""
    vault = vault_of(request)
    try:
        started = await begin_sign_in(vault)
    except VaultError as error:
        return _refused(error)
    response = web.Response(status=303, headers={"Location": started.url})
    _set(vault, response, BEGUN, started.browser, int(BEGUN_SECONDS))
    return response


async def callback(request: web.Request) -> web.Response:
    """Take the identity provider's answer."""
    vault = vault_of(request)
    try:
        if error := request.query.get("error"):
            state, browser = _one(request, "state"), _cookie(request, BEGUN) or ""
            said = refused_sign_in(vault, state=state, browser=browser, error=error)
            raise UnauthenticatedError(said)
        secret = await finish_sign_in(
            vault,
            state=_one(request, "state"),
            code=_one(request, "code"),
            browser=_cookie(request, BEGUN) or "",
        )
    except VaultError as error:
        return _refused(error)
    response = web.Response(status=303, headers={"Location": "/console"})
    _set(vault, response, BEGUN, "", 0)
    _set(vault, response, SESSION, secret, int(vault.config.session_seconds))
    return response


async def end(request: web.Request) -> web.Response:
    """Sign out, here and at the identity provider."""
    vault = vault_of(request)
    session, secret = await _session(request), _cookie(request, SESSION)
    if session is None or secret is None:
        return web.Response(status=303, headers={"Location": "/console"})
    try:
        await _check_own_form(request, session)
        elsewhere = await sign_out(vault, secret, session)
    except VaultError as error:
        return _refused(error)
    response = web.Response(status=303, headers={"Location": elsewhere or "/console"})
    _set(vault, response, SESSION, "", 0)
    return response


async def end_elsewhere(request: web.Request) -> web.Response:
    """Take the identity provider's word that somebody has signed out (back-channel log-out)."""
    token = (await form_fields(request)).get("logout_token")
    if token is None:
        raise InvalidRequestError("logout_token is missing")
    try:
        await signed_out_elsewhere(vault_of(request), token)
    except UnauthenticatedError as error:
        raise InvalidRequestError(str(error)) from None
    return web.Response()


async def _session(request: web.Request) -> Session | None:
    return await find_session(vault_of(request), _cookie(request, SESSION))


async def _check_own_form(request: web.Request, session: Session) -> None:
    """Raise unless the form is one of the console's own, of this session."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    own = vault_of(request).config.public_url
    token = (await form_fields(request)).get("csrf", "")
    good = hmac.compare_digest(token.encode(), session.csrf.encode())
    if not good or site != "same-origin" or (origin is not None and origin != own):
        raise ForbiddenError("this form did not come from the console; go back and try again")


def _one(request: web.Request, name: str) -> str:
    found = request.query.getall(name, [])
    if len(found) != 1 or not found[0]:
        raise UnauthenticatedError("the identity provider did not sign you in; begin again")
    return str(found[0])


def _refused(error: VaultError) -> web.Response:
    kind = type_of(error) or INTERNAL
    return page("refused", status=kind.status, title=kind.title, detail=told(kind, error))


def _provider_origin(vault: Vault) -> str | None:
    if vault.people is None:
        return None
    parts = urlsplit(vault.people.provider.issuer)
    return f"{parts.scheme}://{parts.netloc}"


def _cookie(request: web.Request, name: str) -> str | None:
    vault = vault_of(request)
    found = request.cookies.get(_full(vault, name))
    return found if found and len(found) <= _COOKIE_LENGTH_MAX else None


def _set(vault: Vault, response: web.Response, name: str, value: str, seconds: int) -> None:
    """
    Set a cookie that no script reads and no other site sends along with a form.

    With TLS its name says that it was set by this very host and never over plain HTTP (RFC 6265bis,
    4.1.3.2), so that nobody beside it can plant one.
    """
    response.set_cookie(
        _full(vault, name),
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        secure=_secure(vault),
        samesite="Lax",
    )


def _full(vault: Vault, name: str) -> str:
    return f"__Host-{name}" if _secure(vault) else name


def _secure(vault: Vault) -> bool:
    return vault.config.public_url.startswith("https://")


# ---- The console's routes. They are pages and no part of the API, so OpenAPI does not tell of
# them.

CONSOLE_ROUTES = (
    Route("GET", "/", go_to_console, "To the console", 303, "text/html"),
    Route("GET", "/console", show_console, "Who is signed in", 200, "text/html"),
    Route("GET", "/console/sign-in", begin, "Begin a sign-in", 303, "text/html"),
    Route("GET", "/console/callback", callback, "End a sign-in", 303, "text/html"),
    Route("POST", "/console/sign-out", end, "Sign out", 303, "text/html"),
    Route(
        "POST",
        "/console/back-channel-logout",
        end_elsewhere,
        "Sign out whom the identity provider names",
        200,
        "text/plain",
    ),
)
