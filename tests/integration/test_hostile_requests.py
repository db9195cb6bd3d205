"""Requests that nobody sends who means well: each is answered, and none by a fault of ours."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.fixtures_server import Api, serving
from vault.context import Vault


async def raw(api: Api, head: bytes) -> bytes:
    """Send bytes as they are, and return the status of the answer."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    try:
        async with asyncio.timeout(20.0):
            return (await reader.read(64)).split(b" ", 2)[1]
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_what_is_no_text_is_unknown(vault: Vault) -> None:
    """A token, a cookie or a signature of bytes that are no text is refused like any wrong one."""
    for line, header, status in [
        (b"GET /v1/orders", b"Authorization: Bearer pv_\xff\xfe", b"401"),
        (b"GET /console", b"Cookie: portvault-session=\xff\xfe", b"200"),
        (b"POST /console/sign-out", b"Cookie: portvault-session=\xff\xfe", b"303"),
        (b"POST /v1/hooks/twilio", b"X-Twilio-Signature: \xff", b"401"),
        (b"POST /v1/hooks/bandwidth", b"Authorization: Basic \xff", b"401"),
        (b"POST /v1/hooks/telnyx", b"telnyx-signature-ed25519: \xff", b"401"),
    ]:
        config = replace(
            vault.config, twilio_auth_token="t", bandwidth_credentials="b:w", public_url="http://x"
        )
        async with serving(replace(vault, config=config)) as api:
            head = line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + header + b"\r\n\r\n"
            assert await raw(api, head) == status


async def test_a_nul_in_a_query_finds_nothing(api: Api) -> None:
    """What the database's texts cannot hold is not asked of it: 404."""
    for path in [
        "/v1/access-records?region=uk&principal=%00",
        "/v1/retention/instructions?customer=%00",
        "/v1/faxes?state=%00",
        "/healthz?x=%00",
    ]:
        assert (await api.call("GET", path, role="compliance"))[0] == 404


@pytest.mark.parametrize("path", ["/v1/hooks/telnyx", "/console/back-channel-logout"])
async def test_a_stranger_who_never_ends_a_body_is_answered(vault: Vault, path: str) -> None:
    """Where no token is needed either, a body that does not come is not waited for."""
    config = replace(vault.config, upload_idle_seconds=0.3)
    async with serving(replace(vault, config=config)) as api:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
        assert await raw(api, head.encode()) == b"400"


async def test_a_form_with_a_file_is_spooled_nowhere(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-out sent as a form with a file makes no temporary file of a stranger's bytes."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="logout_token"; filename="x"\r\n'
        b"Content-Type: text/plain\r\n\r\nsecret\r\n--b--\r\n"
    )
    head = (
        b"POST /console/back-channel-logout HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" % len(body)
    )
    assert await raw(api, head + body) == b"422"
