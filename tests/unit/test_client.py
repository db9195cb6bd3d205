"""Where the command line finds the vault, and what it says where plain HTTP meets TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from vault.commands.documents import kept_by
from vault.commands.http import call, server_address, session
from vault.commands.orders import _order_row
from vault.errors import ConfigurationError, UnavailableError

NOON = "2026-11-28T12:00:00Z"


@pytest.mark.parametrize(
    "given, address",
    [
        ("127.0.0.1", "http://127.0.0.1:8701"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("localhost", "http://localhost:8701"),
        ("localhost:9000/", "http://localhost:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("vault.example", "https://vault.example"),
        ("vault.example:8700", "https://vault.example:8700"),
        ("192.0.2.7:8700", "https://192.0.2.7:8700"),
        ("http://vault.example:8700", "http://vault.example:8700"),
        ("https://127.0.0.1:8700/", "https://127.0.0.1:8700"),
    ],
)
def test_tls_is_guessed(given: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scheme this machine is spoken to in plain HTTP, everything else over TLS."""
    monkeypatch.setenv("PORTVAULT_PORT", "8701")
    assert server_address(given) == address


@pytest.mark.parametrize(
    "given", ["ftp://vault.example", "https://vault.example/x", "vault.example/x", "host:port"]
)
def test_what_is_no_address_says_how_one_looks(given: str) -> None:
    """A path, another scheme or a port that is no number is refused with an example."""
    with pytest.raises(ConfigurationError, match=r"write the server as https://vault\.example"):
        server_address(given)


@asynccontextmanager
async def peer(
    tls: ssl.SSLContext | None, answer: bytes = b"HTTP/1.1 400 Bad Request\r\n"
) -> AsyncIterator[str]:
    """Answer with little on a port, over TLS or without."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer + b"Content-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def said(address: str) -> str:
    with pytest.raises(UnavailableError) as raised:
        async with session(address) as http:
            await call(http, "GET", "/v1/orders")
    return str(raised.value)


async def test_plain_http_to_tls_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who forgets the s is told; who does not trust the certificate is told that."""
    monkeypatch.setenv("PORTVAULT_TOKEN", "pv_x")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*Authority(tmp_path).issue("vault"))
    async with peer(tls) as place:
        assert f"speaks TLS: write it as https://{place}" in await said(f"http://{place}")
        assert "a certificate that this machine does not trust" in await said(f"https://{place}")


async def test_tls_to_plain_http_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has an s too many is told, and so is who speaks to nothing."""
    monkeypatch.setenv("PORTVAULT_TOKEN", "pv_x")
    async with peer(None) as place:
        assert f"does not speak TLS: write it as http://{place}" in await said(f"https://{place}")
    assert "nothing answers" in await said(f"https://{place}")


async def test_what_speaks_no_http_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail server's port, say, is no network that broke."""
    monkeypatch.setenv("PORTVAULT_TOKEN", "pv_x")
    async with peer(None, b"220 mail.test ESMTP\r\n") as place:
        assert f"what answers at http://{place} does not speak HTTP" in await said(place)


def test_a_damaged_order_is_marked_in_the_list() -> None:
    """Where others have a number, or a dash because none may be shown."""
    names = ("reference", "document_count", "due_at", "customer_reference", "numbers_masked")
    order = dict.fromkeys((*names, "number_count")) | {"created_at": "2026-01-01T00:00:00Z"}
    shown = {word: _order_row({**order, "details": word})["number"] for word in ("gone", "damaged")}
    assert shown == {"gone": "-", "damaged": "damaged"}


@pytest.mark.parametrize(
    "document, said",
    [
        ({"held": False, "holds": [], "restriction": None}, (None, None)),
        ({"held": True, "holds": [], "restriction": None}, ("not for your role to see", None)),
        (
            {
                "held": True,
                "holds": [{"id": "one"}, {"id": "two"}],
                "restriction": {"reason": "contested", "by": "token:1", "since": NOON},
            },
            ("one, two", "since 2026-11-28T12:00:00Z, by token:1: contested"),
        ),
        (
            {
                "held": False,
                "holds": [],
                "restriction": {"reason": None, "by": None, "since": NOON},
            },
            (None, "since 2026-11-28T12:00:00Z"),
        ),
    ],
)
def test_what_keeps_a_document_is_said(
    document: dict[str, Any], said: tuple[str | None, str | None]
) -> None:
    """Holds and a restriction stand in a line each, without what is not for the reader."""
    kept = kept_by(document)
    assert (kept["holds"], kept["restriction"]) == said
