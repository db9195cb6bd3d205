"""
The identity provider: OpenID Connect, authorization code with PKCE.

Authlib shapes the requests and checks claims, joserfc checks signatures, aiohttp carries them. Keys
and addresses are read from the provider and remembered for some minutes; an unknown key has them
read again. What does not verify is one error without detail.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlsplit

import aiohttp
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from vault.config.settings import Config
from vault.context import People
from vault.domain.people import parse_mapping
from vault.errors import ConfigurationError, IdentityProviderUnavailableError, UnauthenticatedError

#: What an ID token may be signed with: never a shared secret, never nothing.
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
REMEMBER_SECONDS = 300.0
REREAD_SECONDS = 10.0
TIMEOUT_SECONDS = 10.0
LEEWAY_SECONDS = 30
ANSWER_BYTES_MAX = 1024 * 1024
#: What a token or a key that is none can cause in the libraries.
_MALFORMED = (
    JoseError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


def open_people(config: Config) -> People | None:
    """Open the provider that the configuration names, with what its groups mean; None: none."""
    if not config.oidc_issuer:
        return None
    mapping = parse_mapping(
        config.oidc_claim, config.oidc_roles, config.oidc_regions, config.oidc_located
    )
    provider = OidcProvider(
        config.oidc_issuer, config.oidc_client_id, config.oidc_client_secret, config.oidc_scopes
    )
    return People(provider, mapping)


class OidcProvider:
    """One provider, as the vault's configuration names it."""

    def __init__(self, issuer: str, client_id: str, client_secret: str, scopes: str) -> None:
        parts = urlsplit(issuer)
        local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise ConfigurationError("oidc_issuer must be an https:// address")
        self.issuer, self._client_id, self._scopes = issuer, client_id, scopes
        self._secret = client_secret
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._read_at = float("-inf")

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return where a browser is sent to sign in."""
        metadata, _ = await self._read()
        url: str = prepare_grant_uri(
            metadata["authorization_endpoint"],
            self._client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=self._scopes,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return url

    async def end_session_url(self, back_to: str) -> str | None:
        """Return where a browser is sent to sign out of the provider, too."""
        metadata, _ = await self._read()
        endpoint = metadata.get("end_session_endpoint")
        if endpoint is None:
            return None
        fields = {"client_id": self._client_id, "post_logout_redirect_uri": back_to}
        url: str = add_params_to_uri(endpoint, list(fields.items()))
        return url

    async def exchange(
        self, *, code: str, redirect_uri: str, nonce: str, verifier: str
    ) -> Mapping[str, Any]:
        """Return the verified claims that a code is good for; a code is good once."""
        metadata, _ = await self._read()
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=verifier
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        url, headers, body = self._authentication().prepare(
            "POST", metadata["token_endpoint"], headers, body
        )
        status, answer = await _ask("POST", url, headers=headers, data=body)
        if status != 200 or not isinstance(answer.get("id_token"), str):
            raise UnauthenticatedError("the identity provider does not take this sign-in")
        return await self._verified(
            answer["id_token"], nonce=nonce, access_token=answer.get("access_token")
        )

    def _authentication(self) -> ClientAuth:
        """
        Return how the vault says who it is at the provider's token endpoint.

        Basic authentication wants both form-encoded (RFC 6749, 2.3.1), which some providers do not
        know: where that makes a difference, and the provider takes them in the body, they go there.
        """
        if not self._secret:
            return ClientAuth(self._client_id, "", "none")
        encoded = quote_plus(self._client_id), quote_plus(self._secret)
        known = self._metadata.get("token_endpoint_auth_methods_supported")
        if encoded != (self._client_id, self._secret) and "client_secret_post" in (known or ()):
            return ClientAuth(self._client_id, self._secret, "client_secret_post")
        return ClientAuth(*encoded, "client_secret_basic")

    async def logged_out(self, logout_token: str) -> Mapping[str, Any]:
        """Return whom a back-channel log-out speaks of: `sub`, `sid` or both."""
        return await self._with_keys(
            lambda keys: verify_logout_token(
                logout_token, keys, issuer=self.issuer, client_id=self._client_id
            )
        )

    async def _verified(
        self, token: str, *, nonce: str, access_token: str | None
    ) -> Mapping[str, Any]:
        return await self._with_keys(
            lambda keys: verify_id_token(
                token,
                keys,
                issuer=self.issuer,
                client_id=self._client_id,
                nonce=nonce,
                access_token=access_token,
            )
        )

    async def _with_keys(self, verify: Callable[[KeySet], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Verify with the keys that are known; where that fails, once more with fresh ones."""
        _, keys = await self._read()
        try:
            return verify(keys)
        except UnauthenticatedError:
            if time.monotonic() - self._read_at < REREAD_SECONDS:
                raise
        _, keys = await self._read(fresh=True)
        return verify(keys)

    async def _read(self, *, fresh: bool = False) -> tuple[dict[str, Any], KeySet]:
        """Return the provider's addresses and keys."""
        now = time.monotonic()
        if self._keys is None or fresh or now - self._read_at > REMEMBER_SECONDS:
            place = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
            status, metadata = await _ask("GET", place)
            # A provider that calls itself otherwise is another one (OIDC Discovery, 4.3).
            if status != 200 or metadata.get("issuer") != self.issuer:
                raise IdentityProviderUnavailableError
            status, keys = await _ask("GET", str(metadata["jwks_uri"]))
            if status != 200:
                raise IdentityProviderUnavailableError
            self._metadata, self._keys = metadata, _key_set(keys)
            self._read_at = now
        return self._metadata, self._keys


def verify_id_token(
    token: str,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    access_token: str | None = None,
    now: int | None = None,
) -> Mapping[str, Any]:
    """Return the claims of an ID token (OIDC Core, 3.1.3.7); raises `UnauthenticatedError`."""
    try:
        found = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        claims = CodeIDToken(
            found.claims,
            found.header,
            {
                "iss": {"essential": True, "value": issuer},
                "aud": {"essential": True, "value": client_id},
                "nonce": {"essential": True, "value": nonce},
            },
            {"client_id": client_id, "nonce": nonce, "access_token": access_token},
        )
        claims.validate(now=now, leeway=LEEWAY_SECONDS)
    except _MALFORMED as error:
        raise UnauthenticatedError("the identity provider's answer does not verify") from error
    return dict(claims)


def verify_logout_token(
    token: str, keys: KeySet, *, issuer: str, client_id: str, now: int | None = None
) -> Mapping[str, Any]:
    """Return the claims of a log-out token (OIDC Back-Channel Logout, 2.6)."""
    try:
        found = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client_id},
            iat={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        ).validate(found.claims)
        claims = found.claims
        about = claims.get("sub") or claims.get("sid")
        # A nonce would make it an ID token that is passed off as this.
        if LOGOUT_EVENT not in claims["events"] or "nonce" in claims or not about:
            raise ValueError("no log-out")
    except _MALFORMED as error:
        raise UnauthenticatedError("this is no log-out of the identity provider") from error
    return claims


def _key_set(keys: dict[str, Any]) -> KeySet:
    """Return the provider's public keys; a symmetric one has no place among them."""
    try:
        public = [key for key in keys["keys"] if key.get("kty") in {"RSA", "EC", "OKP"}]
        return KeySet.import_key_set({"keys": public})
    except _MALFORMED as error:
        raise IdentityProviderUnavailableError from error


async def _ask(method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=False) as session,
            session.request(method, url, allow_redirects=False, **options) as response,
        ):
            answer = json.loads(await _whole(response))
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError, RecursionError) as error:
        raise IdentityProviderUnavailableError from error
    if not isinstance(answer, dict):
        raise IdentityProviderUnavailableError
    return response.status, answer


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """Return the whole body, in however many pieces it comes; raises ValueError if it is large."""
    raw = bytearray()
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > ANSWER_BYTES_MAX:
            raise ValueError("the answer is too large")
    return bytes(raw)
