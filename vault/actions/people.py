"""People: they sign in by the identity provider, and the log has what they were called then."""

import hashlib
import hmac
import logging
import re
import secrets
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vault.actions.access import own_regions, recorded
from vault.context import People, Vault
from vault.domain.access import Action, Principal
from vault.domain.people import Names, actors_of, person_of, principal_id
from vault.errors import (
    ForbiddenError,
    IdentityProviderUnavailableError,
    NotFoundError,
    UnauthenticatedError,
)
from vault.sql import access as access_sql
from vault.sql import log as log_sql
from vault.sql.access import Session
from vault.sql.connection import connection, transaction

# ---- Sign-in: a person goes to the identity provider and comes back as a principal. -------------
#
# What was begun belongs to the browser that began it and is taken back once, so no answer of the
# provider can be replayed or pushed onto somebody else. A session is made anew at every sign-in,
# whatever the browser held before.

log = logging.getLogger(__name__)

SECRET_BYTES = 32
BEGUN_SECONDS = 600.0
#: How much longer than it is good a log-out token is remembered: clocks differ.
LOG_OUT_SECONDS, LOG_OUT_SECONDS_MAX = 120.0, 7 * 86400.0
PURPOSE, TIME_DIGITS_MAX = "sign-in", 12
#: RFC 6749, 4.1.2.1, and those of OpenID Connect Core, 3.1.2.6.
PROVIDER_ERROR = re.compile(r"[a-z_]{1,64}", re.ASCII)
_HINTS = {
    "access_denied": "your account may not use this application there",
    "invalid_scope": "it does not know one of the scopes in oidc_scopes",
    "unauthorized_client": "the vault is not registered there as oidc_client_id says",
    "login_required": "sign in there first",
    "temporarily_unavailable": "try again later",
    "server_error": "try again later",
}
CALLBACK = "/console/callback"


@dataclass(frozen=True, slots=True)
class Started:
    """Where the browser goes, and what it has to bring back."""

    url: str
    browser: str


@dataclass(frozen=True, slots=True)
class _Begun:
    """A sign-in that was begun: all of it follows from what the browser keeps and our secret."""

    browser: str
    state: str
    nonce: str
    verifier: str
    expires_at: int

    @classmethod
    def of(cls, secret: bytes, random: str, expires_at: int) -> "_Begun":
        """Return what belongs to a random text of ours, until a time in Unix seconds."""
        begun = f"{expires_at}.{random}"
        mac, state, nonce, verifier = (
            _text(hmac.digest(secret, f"{part}.{begun}".encode(), "sha256"))
            for part in ("browser", "state", "nonce", "verifier")
        )
        return cls(f"{begun}.{mac}", state, nonce, verifier, expires_at)


def _text(secret: bytes) -> str:
    return b64encode(secret, b"-_").rstrip(b"=").decode()


def _find_begun(vault: Vault, browser: str, state: str) -> _Begun:
    """Return what this browser began here; raises `UnauthenticatedError`."""
    expires_at, _, rest = browser.partition(".")
    random, _, _ = rest.partition(".")
    if expires_at.isascii() and expires_at.isdigit() and len(expires_at) <= TIME_DIGITS_MAX:
        for secret in vault.signer.derived(PURPOSE):
            begun = _Begun.of(secret, random, int(expires_at))
            if _is_same(begun.browser, browser) and _is_same(begun.state, state):
                if begun.expires_at > vault.clock().timestamp():
                    return begun
                break
    raise UnauthenticatedError("this sign-in was not begun here, or too long ago; begin again")


def _is_same(known: str, said: str) -> bool:
    return hmac.compare_digest(known.encode(), said.encode(errors="surrogatepass"))


async def begin_sign_in(vault: Vault) -> Started:
    """
    Begin; the answer has to come back to the same browser within ten minutes.

    Nothing is kept of it, since any stranger may begin: what the answer has to fit follows from the
    cookie, by a secret that only the vault has.
    """
    people = _people(vault)
    begun = _Begun.of(
        vault.signer.derived(PURPOSE)[0],
        secrets.token_urlsafe(SECRET_BYTES),
        int(vault.clock().timestamp() + BEGUN_SECONDS),
    )
    url = await people.provider.authorization_url(
        redirect_uri=_callback(vault),
        state=begun.state,
        nonce=begun.nonce,
        verifier=begun.verifier,
    )
    return Started(url, begun.browser)


async def finish_sign_in(vault: Vault, *, state: str, code: str, browser: str) -> str:
    """Return the secret of a new session, which only the browser keeps."""
    people = _people(vault)
    begun = _find_begun(vault, browser, state)
    claims = await people.provider.exchange(
        code=code, redirect_uri=_callback(vault), nonce=begun.nonce, verifier=begun.verifier
    )
    try:
        person = person_of(claims, people.mapping)
    except ForbiddenError:
        await _refuse(vault, principal_id(str(claims["iss"]), str(claims["sub"])))
        raise
    secret, now = secrets.token_urlsafe(SECRET_BYTES), vault.clock()
    session = Session(
        person,
        csrf=secrets.token_urlsafe(SECRET_BYTES),
        expires_at=now + timedelta(seconds=vault.config.session_seconds),
    )
    sid = claims.get("sid")
    until = datetime.fromtimestamp(begun.expires_at, UTC)
    async with (
        recorded(
            vault, person.principal, Action.SESSION_BEGIN, region=_region(vault, person.principal)
        ) as access,
        transaction(vault.pool) as conn,
    ):
        # The provider takes a code once; and an answer is taken once here, whatever it does.
        if not await access_sql.take_session(conn, _hash(f"sign-in {begun.browser}"), until):
            raise UnauthenticatedError("this sign-in has ended already; begin again")
        await access_sql.insert_session(
            conn,
            _hash(secret),
            session,
            subject=str(claims["sub"]),
            provider_session=sid if isinstance(sid, str) else None,
            now=now,
        )
        if person.name is not None:
            await access_sql.note_name(conn, person.principal.id, person.name, now)
        await log_sql.insert_records(conn, [access.conclude()])
    return secret


def refused_sign_in(vault: Vault, *, state: str, browser: str, error: str) -> str:
    """
    Return what the provider says of a sign-in that it refused; its code is written down, too.

    Raises `UnauthenticatedError` unless the sign-in was begun by this browser: anybody can write
    such an address.
    """
    _find_begun(vault, browser, state)
    code = error if PROVIDER_ERROR.fullmatch(error) else "an error without a known code"
    log.warning("the identity provider refuses a sign-in: %s", code)
    hint = _HINTS.get(code, "ask who looks after it")
    return f"the identity provider refuses this sign-in ({code}); {hint}"


async def find_session(vault: Vault, secret: str | None) -> Session | None:
    """Return who is signed in with this secret."""
    if not secret:
        return None
    async with connection(vault.pool) as conn:
        return await access_sql.find_session(conn, _hash(secret), vault.clock())


async def sign_out(vault: Vault, secret: str, session: Session) -> str | None:
    """End the session; returns where to sign out of the provider, too, if it has such a place."""
    principal = session.person.principal
    async with (
        recorded(vault, principal, Action.SESSION_END, region=_region(vault, principal)) as access,
        transaction(vault.pool) as conn,
    ):
        await access_sql.delete_session(conn, _hash(secret))
        await log_sql.insert_records(conn, [access.conclude()])
    if vault.people is None:
        return None
    try:
        return await vault.people.provider.end_session_url(vault.config.public_url + "/console")
    except IdentityProviderUnavailableError:
        # Here it has ended; the provider's own session is not ours to end.
        return None


async def signed_out_elsewhere(vault: Vault, logout_token: str) -> int:
    """End the sessions that the provider says have ended; returns how many."""
    claims = await _people(vault).provider.logged_out(logout_token)
    subject, sid = claims.get("sub"), claims.get("sid")
    name = _hash(f"log-out {claims['iss']} {claims['jti']}")
    now = vault.clock()
    good_seconds = min(float(claims["exp"]) - now.timestamp(), LOG_OUT_SECONDS_MAX)
    until = now + timedelta(seconds=good_seconds + LOG_OUT_SECONDS)
    async with transaction(vault.pool) as conn:
        if not await access_sql.take_session(conn, name, until):
            raise UnauthenticatedError("this log-out was taken already")
        ended = await access_sql.delete_sessions_of(conn, subject, sid)
    for session in ended:
        principal = session.person.principal
        async with recorded(vault, principal, Action.SESSION_END, region=_region(vault, principal)):
            pass
    return len(ended)


async def _refuse(vault: Vault, identity: str) -> None:
    """Record that somebody signed in whom the vault has nothing for."""
    nobody = Principal(identity, "none", frozenset())
    try:
        async with recorded(vault, nobody, Action.SESSION_BEGIN, region=None):
            pass
    except (ForbiddenError, NotFoundError):
        return


def _people(vault: Vault) -> People:
    if vault.people is None:
        raise NotFoundError("nobody signs in here: no identity provider is configured")
    return vault.people


def _callback(vault: Vault) -> str:
    return vault.config.public_url + CALLBACK


def _region(vault: Vault, principal: Principal) -> str | None:
    mine = own_regions(vault, principal)
    return mine[0] if mine else None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


# ---- What the principals of an answer were called when they acted. ------------------------------


async def named(vault: Vault, shown: Any) -> Any:
    """Return an answer in which each principal has its name of then beside it, or None."""
    principals = actors_of(shown)
    if not principals:
        return Names([]).beside(shown)
    async with connection(vault.pool) as conn:
        names = await access_sql.names_of(conn, principals)
    return names.beside(shown)


# ---- Forget what a principal was called: the log keeps its id, and nobody can be told from that.


async def forget_name(vault: Vault, principal: Principal, of: str) -> int:
    """Take all names of the principal `of` away, its token's label too; returns how many."""
    async with (
        recorded(vault, principal, Action.LOG_FORGET_NAME, region=vault.config.regions) as access,
        transaction(vault.pool) as conn,
    ):
        number = await access_sql.forget_name(conn, of)
        if not number:
            raise NotFoundError("no name is kept of this principal; say its id, as the log has it")
        await log_sql.insert_records(conn, access.conclude_everywhere(of))
    return number
