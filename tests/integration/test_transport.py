"""The wire: TLS and its renewal, certificates of clients, proxies, slow and malformed requests."""

import asyncio
import hashlib
import json
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.certificates import Authority
from tests.fixtures_server import OPERATOR, Api, in_pieces, serving
from vault.actions.credentials import create_token
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.credentials import Grant
from vault.errors import ConfigurationError
from vault.web import listening
from vault.web.auth import networks, tls_certificate
from vault.web.requests import BODY_CHUNK_BYTES

GATEWAY = Grant("fax-gateway", frozenset({"uk"}))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority that signs for 127.0.0.1."""
    return Authority(tmp_path)


@pytest.fixture
def tls_config(config: Config, authority: Authority) -> Config:
    """Give settings with a certificate, and an authority of clients."""
    certificate, key = authority.issue("server")
    return replace(
        config,
        tls_certificate=str(certificate),
        tls_key=str(key),
        tls_client_ca=str(authority.path),
    )


@pytest.fixture
async def address(vault: Vault, tls_config: Config) -> AsyncIterator[str]:
    """Serve over TLS."""
    async with listening.serving(tls_config, replace(vault, config=tls_config)) as where:
        yield where


def client(authority: Authority, name: str | None = None) -> ssl.SSLContext:
    """Return a client's context, with a certificate where it has one."""
    context = ssl.create_default_context(cafile=str(authority.path))
    if name:
        context.load_cert_chain(*authority.issue(name))
    return context


async def get(
    address: str, context: ssl.SSLContext, path: str = "/healthz", **headers: str
) -> tuple[int, aiohttp.ClientResponse]:
    """Call over TLS, on a connection of its own."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(address + path, ssl=context, headers=headers) as response,
    ):
        await response.read()
        return response.status, response


async def serial(address: str, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a new connection is shown."""
    port = int(address.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    await writer.wait_closed()
    return str(shown["serialNumber"])


async def test_tls_is_spoken_and_insisted_on(address: str, authority: Authority) -> None:
    """Over TLS answers say that it stays so; TLS 1.1 and plain HTTP get no answer."""
    status, response = await get(address, client(authority))
    assert status == 200
    assert response.headers["Strict-Transport-Security"].startswith("max-age=63072000")
    old = client(authority)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    # So that it is the server that refuses.
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(aiohttp.ClientError):
        await get(address, old)
    with pytest.raises(aiohttp.ClientError):
        await get(address.replace("https", "http"), old)


async def test_a_new_certificate_drops_no_connection(address: str, authority: Authority) -> None:
    """New connections see the new certificate, while one that was open before goes on."""
    context = client(authority)
    before = await serial(address, context)
    port = int(address.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    for again in (False, True):
        if again:
            authority.issue("server")
            async with asyncio.timeout(20):
                while await serial(address, context) == before:
                    await asyncio.sleep(0.1)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(len(b'{"status": "alive"}'))
    assert writer.get_extra_info("ssl_object").getpeercert()["serialNumber"] == before
    writer.close()
    await writer.wait_closed()


async def test_a_certificate_may_change_its_algorithm(address: str, authority: Authority) -> None:
    """From EC to RSA and back, what new connections are shown is the new one, for every client."""
    context = client(authority)
    for is_rsa in (True, False, True):
        before = await serial(address, context)
        authority.issue("server", is_rsa=is_rsa)
        async with asyncio.timeout(20):
            while await serial(address, context) == before:
                await asyncio.sleep(0.1)


async def test_an_authority_that_is_withdrawn_lets_nobody_in(
    address: str, authority: Authority, tls_config: Config, tmp_path: Path
) -> None:
    """When `tls_client_ca` changes, clients of the one before are strangers, the new one's not."""
    context, gateway = client(authority), client(authority, "gateway")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = Authority(elsewhere)
    theirs = client(authority)
    theirs.load_cert_chain(*other.issue("gateway"))
    assert (await get(address, gateway))[0] == 200
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await get(address, theirs)
    own_ca = tmp_path / "clients.pem"
    own_ca.write_bytes(other.path.read_bytes())
    own_ca.replace(tls_config.tls_client_ca)
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await get(address, theirs))[0] == 200
                break
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.1)
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await get(address, gateway)
    assert (await get(address, context))[0] == 200


async def test_a_pair_that_does_not_fit_changes_nothing(
    address: str,
    authority: Authority,
    tls_config: Config,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A certificate under another key, or half of a file, is said in the log; the old one stays."""
    context = client(authority)
    before = await serial(address, context)
    _, other = authority.issue("other")
    with caplog.at_level(logging.WARNING, "vault.process.listener"):
        Path(tls_config.tls_key).write_bytes(other.read_bytes())
        async with asyncio.timeout(20):
            while "the old certificate stays" not in caplog.text:
                await asyncio.sleep(0.1)
    assert await serial(address, context) == before


async def test_a_token_is_bound_to_its_certificate(
    address: str, vault: Vault, authority: Authority
) -> None:
    """The gateway's token is taken with its certificate, and stolen without it is worth nothing."""
    certificate, _ = authority.issue("gateway")
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    bound = replace(GATEWAY, certificate=hashlib.sha256(der).digest())
    _, secret = await create_token(vault, OPERATOR, bound, label="gateway")
    headers, path = {"Authorization": f"Bearer {secret}"}, "/v1/orders"
    own = ssl.create_default_context(cafile=str(authority.path))
    own.load_cert_chain(certificate, certificate.with_suffix(".key"))
    assert (await get(address, own, path, **headers))[0] == 403
    assert (await get(address, client(authority), path, **headers))[0] == 401
    assert (await get(address, client(authority, "thief"), path, **headers))[0] == 401


async def test_a_strangers_certificate_is_no_certificate(
    address: str, authority: Authority, tmp_path: Path
) -> None:
    """Who shows a certificate of another authority does not get as far as HTTP."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    context = client(authority)
    context.load_cert_chain(*Authority(elsewhere).issue("gateway"))
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await get(address, context)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"host": "0.0.0.0"}, "plain HTTP"),
        ({"tls_certificate": "/does/not/exist"}, "cannot be used"),
    ],
)
def test_a_start_that_would_be_open_is_refused(
    config: Config, settings: dict[str, Any], says: str
) -> None:
    """Plain HTTP on a network, or a certificate that is not there, stops the start."""
    with pytest.raises(ConfigurationError, match=says):
        tls_certificate(replace(config, **settings))


def test_proxies_are_named_by_address() -> None:
    """What is no address is refused by its name."""
    assert len(networks(["10.0.0.0/8", "::1"])) == 2
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        networks(["proxy.example"])


@pytest.mark.parametrize("trusted, status", [("127.0.0.0/8", 200), ("192.0.2.1", 403)])
async def test_only_trusted_proxies_speak_plain_http(
    vault: Vault, trusted: str, status: int
) -> None:
    """Where proxies are named, everybody else is sent away, whatever they say of themselves."""
    config = replace(vault.config, trusted_proxies=(trusted,))
    async with serving(replace(vault, config=config)) as api:
        headers = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "Via": "192.0.2.1"}
        async with api.session.get(api.url + "/healthz", headers=headers) as response:
            assert response.status == status


async def raw(api: Api, data: bytes, *, wait_seconds: float = 5.0) -> bytes:
    """Send bytes as they are, and return everything that comes back until it is closed."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    try:
        async with asyncio.timeout(wait_seconds):
            return await reader.read()
    finally:
        writer.close()


async def test_what_is_not_plainly_http_is_refused(api: Api) -> None:
    """Too long, too many, ambiguous or smuggled headers: a problem 400, and no server's name."""
    for head in [
        b"NONSENSE\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(80)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0",
        b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Region : hk\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n",
    ]:
        top, _, body = (await raw(api, head)).partition(b"\r\n\r\n")
        assert top.split(b" ", 2)[1] == b"400", top
        assert b"\r\ncontent-type: application/problem+json" in top.lower()
        assert b"\r\nserver:" not in top.lower()
        assert json.loads(body) == {
            "type": "urn:portvault:problem:bad-request",
            "title": "Bad request",
            "status": 400,
            "detail": "this is not HTTP/1.1",
        }


async def test_a_client_that_never_ends_its_head_is_cut(vault: Vault) -> None:
    """A connection that sends a request line and then drips is closed after the idle time."""
    config = replace(vault.config, idle_seconds=0.5)
    async with serving(replace(vault, config=config)) as api:
        assert await raw(api, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""


async def test_a_client_that_never_ends_its_body_is_answered(vault: Vault) -> None:
    """JSON that does not come is not waited for: 400, and nothing was made of it."""
    config = replace(vault.config, upload_idle_seconds=0.3)
    async with serving(replace(vault, config=config)) as api:
        head = (
            b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n"
            b"Authorization: Bearer " + api.tokens["porting"].encode() + b"\r\n\r\n{"
        )
        assert b"HTTP/1.1 400" in await raw(api, head, wait_seconds=20.0)


async def test_an_upload_that_drips_is_cut(vault: Vault, passport: bytes) -> None:
    """Bytes that come one by one, never idle, hold their place no longer than an upload may."""
    config = replace(vault.config, receiving_seconds_max=0.5)

    async def drip() -> AsyncIterator[bytes]:
        yield passport[:8192]
        for byte in range(8192, len(passport)):
            await asyncio.sleep(0.02)
            yield passport[byte : byte + 1]

    async with serving(replace(vault, config=config)) as api:
        status, answer = await api.put(await api.order(), drip())
        assert (status, "in whole" in answer["detail"]) == (400, True)


@pytest.mark.parametrize("size_bytes, times", [(16 << 20, 1), (BODY_CHUNK_BYTES, 200)])
async def test_a_reader_that_takes_nothing_is_cut(
    vault: Vault, passport: bytes, size_bytes: int, times: int
) -> None:
    """
    Who asks and does not read holds neither memory nor a connection.

    Neither for a large document, nor for a small one so often that no buffer holds it any more.
    """
    config = replace(vault.config, idle_seconds=0.5)
    async with serving(replace(vault, config=config)) as api:
        content = passport[:1024].ljust(size_bytes, b"\0")
        _, document = await api.put(await api.order(), in_pieces(content))
        port = int(api.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(
            f"GET /v1/documents/{document['id']}/content HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {api.tokens['porting']}\r\n"
            "Access-Purpose: verify-identity\r\n\r\n".encode()
            * times
        )
        aborted = (
            "select count(*) from access_record where action = 'document.read' "
            "and phase = 'outcome' and result = 'aborted'"
        )
        async with asyncio.timeout(20):
            while not await vault.pool.fetchval(aborted):
                await asyncio.sleep(0.1)
        writer.transport.abort()
