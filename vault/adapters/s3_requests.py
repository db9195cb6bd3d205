"""
Signed requests to one bucket over aiohttp: the way of the bytes, and of small commands beside it.

Signatures go into headers, not into addresses, so that no log of a proxy or server holds one.
Whatever goes wrong on the way is `ObjectStoreUnavailableError` with what to do about it.
"""

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
from yarl import URL

from vault.adapters.s3_signer import Signer, encode_query
from vault.errors import ObjectMissingError, ObjectStoreUnavailableError, VaultError

READ_BYTES = 256 * 1024
#: Shorter than any server waits, so that a connection it has closed is seldom used again.
KEEPALIVE_SECONDS = 10.0
CLOSE_SECONDS = 0.05
_ERROR_BYTES_MAX = 64 * 1024
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
REFUSED_KEYS = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a bucket is and what opens it; `host` has the port unless it is the usual one."""

    host: str
    bucket: str
    secure: bool
    region: str
    access_key: str
    secret_key: str = field(repr=False)

    def __str__(self) -> str:
        return f"the bucket {self.bucket} on {self.host}"

    def refusal(self, code: str | None, status: int | None = None) -> ObjectStoreUnavailableError:
        """Return the error for an S3 error code, with what to do."""
        if code in REFUSED_KEYS:
            return ObjectStoreUnavailableError(
                f"{self} refuses the credentials ({code}); check PORTVAULT_S3_ACCESS_KEY and its "
                "secret, and that this key may read, write, list and delete in the bucket"
            )
        if code == "NoSuchBucket":
            return ObjectStoreUnavailableError(
                f"{self} does not exist; create it, or correct PORTVAULT_OBJECTS"
            )
        if code == "RequestTimeTooSkewed":
            return ObjectStoreUnavailableError(f"{self} refuses: set the clock of this machine")
        answer = " ".join(str(part) for part in (status, code) if part) or "without a reason"
        return ObjectStoreUnavailableError(f"{self} answered {answer}; see the log of that server")


class SignedRequests:
    """Requests to one bucket; connections are kept and shared."""

    def __init__(self, place: Bucket, *, timeout_seconds: float) -> None:
        self._place = place
        self._signer = Signer(place.host, place.region, place.access_key, place.secret_key)
        self._base = f"{'https' if place.secure else 'http'}://{place.host}"
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=timeout_seconds, sock_read=timeout_seconds
        )
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterable[bytes] | bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send, and give the answer to read from; failures of the reader pass through unchanged."""
        address, signed = self._sign(method, name, query or {})
        try:
            response = await self._connected().request(
                method,
                address,
                headers={**(headers or {}), **signed},
                data=body,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self.lost(error) from error
        try:
            yield response
        finally:
            if response.content.is_eof():
                response.release()
            else:
                response.close()

    async def command(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterable[bytes] | bytes | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """Send, and return headers and body of a success; raises for everything else."""
        async with self.open(method, name, query=query, headers=headers, body=body) as response:
            if response.status not in {200, 204}:
                raise await self.refused(response)
            return response.headers, await self._read_all(response)

    async def refused(self, response: aiohttp.ClientResponse) -> VaultError:
        """Return the error that the server's answer stands for."""
        found = _ERROR_CODE.search(await self._read_all(response))
        code = found[1].decode() if found else None
        if response.status == 404 and code != "NoSuchBucket":
            return ObjectMissingError()
        return self._place.refusal(code, response.status)

    def lost(self, error: BaseException) -> ObjectStoreUnavailableError:
        """Return the error for a connection that failed or took too long."""
        reason = str(error) or type(error).__name__
        return ObjectStoreUnavailableError(
            f"{self._place} cannot be reached ({reason}); check the address and the network"
        )

    async def read(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the body in chunks; raises when it ends before its length."""
        chunks = response.content.iter_chunked(READ_BYTES)
        while True:
            try:
                chunk = await anext(chunks, b"")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self.lost(error) from error
            if not chunk:
                return
            yield chunk

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            # Transports end in later turns of the loop: one whose upload was cut has bytes to send.
            await asyncio.sleep(CLOSE_SECONDS)

    async def _read_all(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of a command, of which no more than the limit is believed."""
        body = b""
        if response.content.at_eof():
            return body
        async for chunk in self.read(response):
            body += chunk
            if len(body) > _ERROR_BYTES_MAX:
                break
        return body

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=READ_BYTES,
            )
        return self._session

    def _sign(self, method: str, name: str, query: Mapping[str, str]) -> tuple[URL, dict[str, str]]:
        path, pairs = f"/{self._place.bucket}/{name}", encode_query(query)
        headers = self._signer.headers(method, path, pairs, datetime.now(UTC))
        # Objects are ciphertext: there is nothing to gain from compressing them.
        headers["Accept-Encoding"] = "identity"
        address = self._base + path + (f"?{pairs}" if pairs else "")
        return URL(address, encoded=True), headers
