"""ID tokens and log-out tokens that an attacker would send: none of them verifies."""

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from vault.adapters.oidc import LOGOUT_EVENT, verify_id_token, verify_logout_token
from vault.errors import UnauthenticatedError

NOW = 1_700_000_000
ISSUER, CLIENT, NONCE = "https://id.example", "portvault", "n-1"
KEY = RSAKey.generate_key(2048, {"kid": "k1"})
OTHER = RSAKey.generate_key(2048, {"kid": "k1"})
KEYS = KeySet.import_key_set({"keys": [KEY.as_dict(private=False)]})
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": CLIENT,
    "sub": "somebody",
    "nonce": NONCE,
    "iat": NOW,
    "exp": NOW + 60,
}
LOGOUT: Mapping[str, Any] = {
    **{name: CLAIMS[name] for name in ("iss", "aud", "sub", "iat", "exp")},
    "jti": "1",
    "events": {LOGOUT_EVENT: {}},
}


def signed(claims: Mapping[str, Any], key: Any = KEY, algorithm: str = "RS256") -> str:
    """Return a token."""
    return jwt.encode({"alg": algorithm, "kid": "k1"}, dict(claims), key, algorithms=[algorithm])


def changed(of: Mapping[str, Any], **claims: Any) -> dict[str, Any]:
    """Return claims with some changed; None leaves one out."""
    return {name: value for name, value in {**of, **claims}.items() if value is not None}


def verify(token: str) -> Mapping[str, Any]:
    """Verify as the vault does."""
    return verify_id_token(token, KEYS, issuer=ISSUER, client_id=CLIENT, nonce=NONCE, now=NOW)


def verify_logout(token: str) -> Mapping[str, Any]:
    """Verify a log-out as the vault does."""
    return verify_logout_token(token, KEYS, issuer=ISSUER, client_id=CLIENT, now=NOW)


def forged(claims: Mapping[str, Any], algorithm: str, secret: bytes | None = None) -> str:
    """Return a token without a signature, or with a MAC under what is no secret."""
    parts = ({"alg": algorithm, "typ": "JWT"}, claims)
    body = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    mac = hmac.digest(secret, body.encode(), "sha256") if secret else b""
    return f"{body}.{_base64(mac)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_good_token_verifies() -> None:
    """The provider's own word is taken, with its claims."""
    assert verify(signed(CLAIMS))["sub"] == "somebody"
    assert verify_logout(signed(LOGOUT))["sub"] == "somebody"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"nonce": "n-2"},
        {"nonce": None},
        {"exp": NOW - 31},
        {"exp": None},
        {"exp": "soon"},
        {"iat": NOW + 3600},
        {"nbf": NOW + 3600},
        {"sub": None},
    ],
)
def test_claims_that_are_not_for_us_now_are_refused(claims: dict[str, Any]) -> None:
    """Another issuer, audience or nonce, an expired or future token: none is taken."""
    with pytest.raises(UnauthenticatedError):
        verify(signed(changed(CLAIMS, **claims)))


def test_no_algorithm_but_the_providers_kind_is_taken() -> None:
    """Neither none, nor a MAC under the public key, nor another key passes for a signature."""
    tokens = [
        forged(CLAIMS, "none"),
        forged(CLAIMS, "NONE"),
        forged(CLAIMS, "HS256", KEY.as_pem(private=False)),
        signed(CLAIMS, OTHER),
    ]
    head, body, _ = signed(CLAIMS).split(".")
    tokens += [f"{head}.{body}.", f"{head}.{body}", "", "x.y.z", "a" * 100_000]
    for token in tokens:
        for check in (verify, verify_logout):
            with pytest.raises(UnauthenticatedError):
                check(token)


@pytest.mark.parametrize(
    "claims",
    [
        {"events": {}},
        {"events": None},
        {"nonce": "n"},
        {"sub": None},
        {"jti": None},
        {"aud": "another-client"},
        {"exp": NOW - 31},
    ],
)
def test_a_log_out_that_is_none_is_refused(claims: dict[str, Any]) -> None:
    """An ID token, or a log-out of another client or of nobody, ends no session."""
    with pytest.raises(UnauthenticatedError):
        verify_logout(signed(changed(LOGOUT, **claims)))
