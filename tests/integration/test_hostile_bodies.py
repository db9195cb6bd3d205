"""Every route with every body that nobody sends who means well: a clear refusal, and no fault."""

import asyncio
import gzip
import json
import re
import zlib
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tests.described import is_described
from tests.fixtures_server import Api, serving
from vault.actions.once import encode_cursor
from vault.context import Vault
from vault.domain.text import parse_time
from vault.web.console.handlers import CONSOLE_ROUTES
from vault.web.route import Route
from vault.web.routes import ROUTES
from vault.web.schemas import SCHEMAS

EVERY = (*ROUTES, *CONSOLE_ROUTES)
ROLES = ("porting", "compliance", "dpo", "admin", "fax-gateway", "witness", "auditor")
SOME_ID = "7d9f5f0e-3f0b-4c62-9d8e-0d6f9bb0a001"
DEEP = b"[" * 30_000
EDGES = (
    "0001-01-01T00:00:00+23:59",
    "0001-01-01",
    "9999-12-31T23:59:59.999999-23:59",
    "9999-12-31T23:59:59Z",
    "1899-12-31T00:00:00Z",
    "2200-01-01T00:00:00+14:00",
)
TEXTS = (*EDGES, "\0", "\ud800", "x" * 40_000, "", "{" * 5000)


def path_of(route: Route) -> str:
    """Return an address of the route."""
    path = route.path.replace("{id}", SOME_ID).replace("{region}", "uk")
    return re.sub(r"\{[^}]*\}", "x", path)


def bodies(route: Route) -> list[bytes]:
    """Return what is sent to a route: no JSON, JSON that goes too deep, and what no field takes."""
    fields: dict[str, object] = SCHEMAS.get(route.body or "", {}).get("properties", {})
    values: tuple[object, ...] = (10**400, -1, True, None, [[]], {"a": [1]}, ["\0"], 1e308, *TEXTS)
    made = [DEEP, b'{"a":' * 30_000, b"\xff\xfe\x00", b"", b"null", b"[]", b"1" * 5000]
    made += [json.dumps(dict.fromkeys(fields, value)).encode() for value in values]
    toml = "a = " + "[" * 20_000
    made.append(json.dumps({name: toml for name in fields if name == "text"}).encode())
    made.append(b"logout_token=" + b"[" * 30_000)
    made.append(b"logout_token=W1tb" + b"W1tb" * 10_000 + b".e30.e30")
    return made


async def exchange(api: Api, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """Send bytes as they are; returns the status, which is described, and what came with it."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head)
        writer.write(body)
        async with asyncio.timeout(30):
            answer = await reader.readuntil(b"\r\n\r\n")
            status, (method, target, _) = int(answer.split(b" ", 2)[1]), head.split(b" ", 2)
            path = target.decode().partition("?")[0]
            assert is_described(method.decode(), path, status), (method, path, status)
            return status, answer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def head_of(route: Route, size: int, *lines: str) -> bytes:
    """Return the head of a request."""
    all_lines = (
        f"{route.method} {path_of(route)} HTTP/1.1",
        "Host: x",
        f"Content-Length: {size}",
        *lines,
    )
    return ("\r\n".join(all_lines) + "\r\n\r\n").encode()


@pytest.fixture
async def everything(vault: Vault):
    """Serve a vault that takes every carrier's webhooks."""
    config = replace(
        vault.config,
        twilio_auth_token="t",
        bandwidth_credentials="b:w",
        telnyx_public_key="AAAA",
        public_url="http://x",
    )
    async with serving(replace(vault, config=config)) as api:
        yield api


async def test_no_body_is_a_fault_of_ours(everything: Api) -> None:
    """Without a token and with one of each role, whatever is sent is answered, and never by 5xx."""
    wrong = []
    for route in EVERY:
        if route.method == "GET":
            continue
        for role in (None, *ROLES):
            token = (f"Authorization: Bearer {everything.tokens[role]}",) if role else ()
            for body in bodies(route):
                head = head_of(route, len(body), "Content-Type: application/json", *token)
                status, _ = await exchange(everything, head, body)
                if status >= 500 and not (status == 503 and route.path.endswith("seal")):
                    wrong.append((route.path, role, body[:40], status))
                # What cannot be read at all is 400, at every entrance that reads it.
                is_json = route not in CONSOLE_ROUTES and not route.files
                if is_json and status == 422 and body in (DEEP, b'{"a":' * 30_000):
                    wrong.append((route.path, role, body[:40], status))
    assert wrong == []


async def test_nothing_compressed_is_read(everything: Api) -> None:
    """On every path, that of no route too, 415 comes while the body has not been sent at all."""
    for coding in ["gzip", "deflate", "br", "zstd", "x-gzip, identity", "GZIP"]:
        nowhere = Route("POST", "/nowhere", EVERY[0].handler, "", 200, "")
        for route in (*EVERY, nowhere):
            head = head_of(route, 50_000_000, f"Content-Encoding: {coding}")
            status, answer = await exchange(everything, head)
            assert status in ({415} if route is not nowhere else {415, 404}), (route.path, answer)


async def test_a_transfer_coding_is_refused_too(everything: Api) -> None:
    """What is not chunked alone is not taken: nobody agrees on where it ends."""
    for route in EVERY:
        if route.method == "GET":
            continue
        head = (
            f"{route.method} {path_of(route)} HTTP/1.1\r\nHost: x\r\n"
            "Transfer-Encoding: gzip, chunked\r\n\r\n"
        )
        status, _ = await exchange(everything, head.encode(), b"0\r\n\r\n")
        assert status in {400, 415}, route.path


@pytest.mark.parametrize("body", [gzip.compress(bytes(1 << 24)), zlib.compress(bytes(1 << 24))])
async def test_nothing_is_inflated(
    everything: Api, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen megabytes of nothing are never made of some kilobytes, before a refusal or after."""

    def inflate(*_: object, **__: object) -> None:
        raise AssertionError("a body was inflated")

    monkeypatch.setattr("aiohttp.http_parser.DeflateBuffer.feed_data", inflate)
    monkeypatch.setattr("aiohttp.http_parser.ZLibDecompressor.decompress_sync", inflate)
    route = next(route for route in EVERY if route.path == "/v1/hooks/telnyx")
    for coding in ("gzip", "deflate"):
        head = head_of(route, len(body), f"Content-Encoding: {coding}")
        assert (await exchange(everything, head, body))[0] == 415


async def test_expectations_are_refused_before_a_body_is_asked_for(everything: Api) -> None:
    """Who waits for 100 Continue hears at once of a coding, and of a body that is too large."""
    for route in EVERY:
        if route.method == "GET":
            continue
        for line, wanted in (("Content-Encoding: gzip", 415), ("X: y", 413)):
            head = head_of(route, 50_000_000, "Expect: 100-continue", line)
            assert (await exchange(everything, head))[0] == wanted, route.path


async def test_what_is_no_request_of_ours_is_described_too(everything: Api) -> None:
    """An unknown expectation, a query with a NUL, a head with two lengths: on every route."""
    for route in EVERY:
        head = head_of(route, 0, "Expect: miracles")
        assert (await exchange(everything, head))[0] == 417, route.path
        head = head_of(route, 0).replace(b" HTTP", b"?a=%00 HTTP", 1)
        assert (await exchange(everything, head))[0] in {401, 404}, route.path
        head = head_of(route, 0, "Content-Length: 5")
        assert (await exchange(everything, head))[0] == 400, route.path


async def test_times_at_the_edges_of_the_calendar(everything: Api) -> None:
    """In queries and cursors, too, such a time is a clear 422."""
    cursor = encode_cursor(datetime(1, 1, 1, tzinfo=UTC), UUID(SOME_ID))
    paths = [f"/v1/orders?cursor={cursor}", f"/v1/faxes?cursor={cursor}"]
    for text in EDGES:
        at = text.replace("+", "%2B")
        paths += [
            f"/v1/access-records?region=uk&from={at}",
            f"/v1/access-records?region=uk&to={at}",
        ]
    for path in paths:
        for role in ("porting", "compliance", "fax-gateway"):
            status, body, _ = await everything.call("GET", path, role=role)
            assert status in {403, 422}, (path, role, body)


@pytest.mark.parametrize("text", EDGES)
def test_what_no_calendar_reckons_with_is_no_time(text: str) -> None:
    """Where an offset would lead out of the calendar, or nearly, it is refused."""
    with pytest.raises(ValueError, match="1900"):
        parse_time(text)


@pytest.mark.parametrize("text", ["1900-01-02T00:00:00+14:00", "2199-12-30T23:59:59-12:00"])
def test_at_the_limit_a_time_is_one(text: str) -> None:
    """The first and the last days are times."""
    assert parse_time(text).isoformat() == text
