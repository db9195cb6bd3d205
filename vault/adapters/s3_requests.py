"""
Signed requests to one bucket: the way of the bytes, and of small commands beside it.

Signatures go into headers, not into addresses, so that no log of a proxy or server holds one.
Whatever goes wrong on the way is `ObjectStoreUnavailableError` with what to do about it.
"""

import asyncio
import hmac
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote
from xml.etree import ElementTree as ET

from vault.adapters.http_client import Exchange, HttpClient
from vault.errors import ObjectMissingError, ObjectStoreUnavailableError, VaultError

# ---- Signs requests to S3 (AWS Signature Version 4), their bodies left out. ---------------------
#
# The same signature as the `minio` client's, which a test holds it against; that one derives its
# key and sorts its headers anew for each request, which at the size of a fax costs a sixth of the
# upload.

UNSIGNED = "UNSIGNED-PAYLOAD"
_SIGNED = "host;x-amz-content-sha256;x-amz-date"


def encode_query(query: Mapping[str, str]) -> str:
    """Return the query as it stands in the address and under the signature."""
    return "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(query.items())
    )


class Signer:
    """Signs for one pair of keys; the key it derives from them is good for a day."""

    def __init__(self, host: str, region: str, access_key: str, secret_key: str) -> None:
        self._host, self._region, self._access_key = host, region, access_key
        self._secret_key = secret_key
        self._day, self._key = "", b""

    def __repr__(self) -> str:
        return f"Signer({self._host})"

    def headers(self, method: str, path: str, query: str, now: datetime) -> dict[str, str]:
        """Return the headers to send; `path` needs no escapes, `query` is encoded, `now` is UTC."""
        at = now.isoformat(timespec="seconds")[:19].replace("-", "").replace(":", "") + "Z"
        day = at[:8]
        scope = f"{day}/{self._region}/s3/aws4_request"
        request = (
            f"{method}\n{path}\n{query}\n"
            f"host:{self._host}\nx-amz-content-sha256:{UNSIGNED}\nx-amz-date:{at}\n\n"
            f"{_SIGNED}\n{UNSIGNED}"
        )
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = _mac(self._day_key(day), text).hex()
        return {
            "Host": self._host,
            "x-amz-content-sha256": UNSIGNED,
            "x-amz-date": at,
            "Authorization": (
                f"AWS4-HMAC-SHA256 Credential={self._access_key}/{scope}, "
                f"SignedHeaders={_SIGNED}, Signature={signature}"
            ),
        }

    def _day_key(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self._secret_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = _mac(key, part)
            self._day, self._key = day, key
        return self._key


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


# ---- S3 requests. -------------------------------------------------------------------------------

#: Of the answer to a command, or an error, no more is believed.
_COMMAND_BYTES_MAX = 64 * 1024
#: What AuthorizationHeaderMalformed, and redirects to another region, say beside their code.
_REGION = re.compile(rb"<Region>([a-z0-9-]{1,40})</Region>")
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

    def refusal(
        self, code: str | None, status: int | None = None, *, region: str | None = None
    ) -> ObjectStoreUnavailableError:
        """Return the error for an S3 error code, with what to do; `region` is the bucket's own."""
        if region is not None and region != self.region:
            return ObjectStoreUnavailableError(
                f"{self} is in the S3 region {region}, and s3_region is {self.region}; "
                f"set PORTVAULT_S3_REGION={region}"
            )
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


def named_region(body: bytes) -> str | None:
    """Return the region that a refusal says the bucket is in, if it says one."""
    found = _REGION.search(body)
    return found[1].decode() if found else None


def parse_answer(body: bytes, root: str) -> ET.Element:
    """
    Return the root element of an answer in XML, which must be a `root` of any namespace.

    Raises `ObjectStoreUnavailableError` for anything else. Declarations are refused before the
    parser sees them, so that no answer defines an entity or names another document; S3 sends none.
    """
    try:
        text = body.decode()
        found = None if "<!" in text else ET.fromstring(text)  # noqa: S314 - nothing is declared
    except (ValueError, ET.ParseError) as error:
        raise ObjectStoreUnavailableError(
            f"the object store's answer is not the XML of S3 ({error}); see the log of that server"
        ) from None
    if found is None:
        raise ObjectStoreUnavailableError(
            "the object store's answer has a declaration, as no answer of S3 has; see the log of "
            "that server"
        )
    if found.tag.rpartition("}")[2] != root:
        raise ObjectStoreUnavailableError(
            f"the object store answered with {found.tag[:60]!r} instead of {root}; "
            "see the log of that server"
        )
    return found


class SignedRequests:
    """Requests to one bucket; connections are kept and shared."""

    def __init__(self, place: Bucket, *, timeout_seconds: float) -> None:
        self._place = place
        self._signer = Signer(place.host, place.region, place.access_key, place.secret_key)
        self._client = HttpClient(place.host, secure=place.secure, timeout_seconds=timeout_seconds)

    async def send(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = b"",
    ) -> Exchange:
        """Send; whoever gives None for the body sends it with `Exchange.send_body`."""
        path, pairs = f"/{self._place.bucket}/{name}", encode_query(query or {})
        signed = self._signer.headers(method, path, pairs, datetime.now(UTC))
        if method in {"PUT", "POST"} and body is not None:
            signed["Content-Length"] = str(len(body))
        if headers:
            signed.update(headers)
        target = f"{path}?{pairs}" if pairs else path
        try:
            # A POST may do twice what it is asked twice.
            return await self._client.send(method, target, signed, body, again=method != "POST")
        except OSError as error:
            raise self.lost(error) from error

    async def command(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Mapping[str, str], bytes]:
        """Send, and return headers and body of a success; raises for everything else."""
        exchange = await self.send(method, name, query=query, body=body)
        try:
            return await self.succeeded(exchange)
        finally:
            exchange.end()

    async def upload(
        self, name: str, query: Mapping[str, str], pieces: AsyncIterable[bytes], size_bytes: int
    ) -> Mapping[str, str]:
        """PUT the pieces, and return the headers of a success."""
        length = {"Content-Length": str(size_bytes)}
        exchange = await self.send("PUT", name, query=query, headers=length, body=None)
        sending = asyncio.create_task(exchange.send_body(pieces))
        try:
            made, _ = await self.succeeded(exchange)
            await sending
            return made
        except OSError as error:
            raise self.lost(error) from error
        finally:
            sending.cancel()
            try:
                await asyncio.gather(sending, return_exceptions=True)
            finally:
                exchange.end()

    async def answered(self, exchange: Exchange) -> int:
        """Return the answer's status, when it has come."""
        try:
            await exchange.answer()
        except OSError as error:
            raise self.lost(error) from error
        return exchange.status

    async def succeeded(self, exchange: Exchange) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of a success; may be called again after it was cancelled."""
        try:
            await exchange.answer()
            body = await exchange.whole(_COMMAND_BYTES_MAX)
        except OSError as error:
            raise self.lost(error) from error
        if exchange.status not in {200, 204}:
            raise self._refusal(exchange, body)
        return exchange.headers, body

    async def refused(self, exchange: Exchange) -> VaultError:
        """Return the error that the server's answer stands for."""
        try:
            return self._refusal(exchange, await exchange.whole(_COMMAND_BYTES_MAX))
        except OSError as error:
            return self.lost(error)

    def _refusal(self, exchange: Exchange, body: bytes) -> VaultError:
        found = _ERROR_CODE.search(body)
        code = found[1].decode() if found else None
        if exchange.status == 404 and code != "NoSuchBucket":
            return ObjectMissingError()
        return self._place.refusal(code, exchange.status, region=named_region(body))

    def lost(self, error: BaseException) -> ObjectStoreUnavailableError:
        """Return the error for a connection that failed or took too long."""
        reason = str(error) or type(error).__name__
        return ObjectStoreUnavailableError(
            f"{self._place} cannot be reached ({reason}); check the address and the network"
        )

    async def read(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """Yield the body in chunks; raises when it ends before its length."""
        try:
            while piece := await exchange.next_piece():
                yield piece
        except OSError as error:
            raise self.lost(error) from error

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()
