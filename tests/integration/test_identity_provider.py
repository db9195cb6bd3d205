"""An identity provider whose answers come as networks bring them, and its word that counts once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from vault.adapters.oidc import ANSWER_BYTES_MAX, LOGOUT_EVENT, OidcProvider
from vault.app import open_vault
from vault.config.settings import Config
from vault.errors import IdentityProviderUnavailableError
from vault.web import listening

KEY = RSAKey.generate_key(2048, {"kid": "k1"})


@asynccontextmanager
async def provider(pieces: int = 1, *, padding: int = 0) -> AsyncIterator[str]:
    """Answer discovery and keys, each body in so many pieces with a pause between."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            said: dict[str, object] = {"keys": [KEY.as_dict(private=False)]}
            if "well-known" in path:
                said = {
                    "issuer": issuer,
                    "jwks_uri": f"{issuer}/keys",
                    "authorization_endpoint": f"{issuer}/auth",
                    "padding": "x" * padding,
                }
            body = json.dumps(said).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            size = -(-len(body) // pieces)
            for start in range(0, len(body), size):
                writer.write(body[start : start + size])
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield issuer
    while any(not writer.is_closing() for writer in writers):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)


def log_out(issuer: str, jti: str) -> str:
    """Return a log-out token of the provider."""
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": "portvault",
        "sub": "somebody",
        "iat": now,
        "exp": now + 60,
        "jti": jti,
        "events": {LOGOUT_EVENT: {}},
    }
    return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, KEY, algorithms=["RS256"])


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_an_answer_may_come_in_pieces(pieces: int) -> None:
    """Discovery and keys are read to their end, in however many pieces of TCP they come."""
    async with provider(pieces) as issuer:
        asked = OidcProvider(issuer, "portvault", "", "openid")
        url = await asked.authorization_url(
            redirect_uri="https://v.example/", state="s", nonce="n", verifier="v" * 43
        )
        assert url.startswith(f"{issuer}/auth?")
        assert (await asked.logged_out(log_out(issuer, "1")))["sub"] == "somebody"


async def test_an_answer_without_an_end_is_none() -> None:
    """At the limit the provider counts as away, and no more of its answer is kept."""
    async with provider(3, padding=ANSWER_BYTES_MAX) as issuer:
        with pytest.raises(IdentityProviderUnavailableError):
            await OidcProvider(issuer, "portvault", "", "openid").end_session_url("https://v/")


async def test_a_log_out_is_taken_once(config: Config) -> None:
    """The same token again is refused, also by another process; another one is taken."""
    async with provider() as issuer:
        changed = replace(
            config,
            public_url="http://127.0.0.1",
            oidc_issuer=issuer,
            oidc_client_id="portvault",
            oidc_roles=("desk=porting",),
            oidc_regions=("uk=uk",),
        )
        async with (
            open_vault(changed, dsn=config.database) as vault,
            listening.serving(changed, vault) as first,
            listening.serving(changed, vault) as second,
            aiohttp.ClientSession() as session,
        ):

            async def say(url: str, token: str) -> int:
                path = f"{url}/console/back-channel-logout"
                async with session.post(path, data={"logout_token": token}) as response:
                    return response.status

            token = log_out(issuer, "1")
            assert [await say(url, token) for url in (first, first, second)] == [200, 422, 422]
            assert await say(second, log_out(issuer, "2")) == 200


async def test_a_stranger_who_begins_a_sign_in_writes_nothing(config: Config) -> None:
    """A thousand beginnings leave the database as it was; what was begun elsewhere is no answer."""
    async with provider() as issuer:
        changed = replace(
            config,
            public_url="http://127.0.0.1",
            oidc_issuer=issuer,
            oidc_client_id="portvault",
            oidc_roles=("desk=porting",),
            oidc_regions=("uk=uk",),
        )
        async with (
            open_vault(changed, dsn=config.database) as vault,
            listening.serving(changed, vault) as url,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):
            tables = [
                row["tablename"]
                for row in await vault.pool.fetch(
                    "select tablename from pg_tables where schemaname = 'public'"
                )
            ]

            async def rows() -> dict[str, int]:
                return {
                    name: await vault.pool.fetchval(f"select count(*) from {name}")
                    for name in tables
                }

            before, cookies = await rows(), []
            for _ in range(100):
                async with session.get(f"{url}/console/sign-in", allow_redirects=False) as response:
                    assert response.status == 303
                    cookies.append(response.cookies["portvault-sign-in"].value)
            for cookie in (cookies[0], "", "1.x.y", cookies[0].replace(".", ".x", 1), "9" * 40):
                async with session.get(
                    f"{url}/console/callback?state=made-up&code=x",
                    headers={"Cookie": f"portvault-sign-in={cookie}"},
                ) as response:
                    assert response.status == 401
            assert await rows() == before
