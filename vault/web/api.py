"""
The handlers of `/v1`: from HTTP to an action and back.

No rule stands here. A handler parses at the edge, calls one action, and shapes the answer.
"""

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from urllib.parse import quote, unquote

from aiohttp import hdrs, web

from vault.actions import correct, orders
from vault.actions.ingest import Pace, Upload, check_filename, ingest
from vault.actions.read import describe, open_content
from vault.actions.retention import standing_of
from vault.config.settings import Config
from vault.domain.documents import Kind, parse_kind, readable
from vault.domain.orders import Status
from vault.domain.records import HEADER as RECEIPT
from vault.domain.text import parse_time
from vault.errors import InvalidRequestError, TruncatedUploadError
from vault.web.requests import (
    STOPPING,
    answer,
    hand_out,
    header_id,
    identity_of,
    json_fields,
    needed,
    principal_of,
    vault_of,
)
from vault.web.retention_schemas import document_json
from vault.web.schemas import order_json

#: A parameter of a header (RFC 9110, 5.6.6); a value that is not quoted may hold spaces.
_PARAMETER = re.compile(r""";\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)""", re.ASCII)
#: RFC 8187: its character sets, those of ISO 8859-1 as browsers read them.
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "cp1252"}
_ESCAPED = re.compile(r"\\(.)")
_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


async def create_order(request: web.Request) -> web.Response:
    """Open a porting order."""
    fields = await json_fields(
        request,
        region=str,
        customer=str,
        customer_reference=str,
        numbers=list,
        type=str,
        losing_carrier=str,
        gaining_carrier=str,
    )
    numbers = needed(fields, "numbers")
    if not all(isinstance(number, str) for number in numbers):
        raise InvalidRequestError("numbers must be a list of strings")
    view = await orders.create_order(
        vault_of(request),
        principal_of(request),
        region=needed(fields, "region"),
        customer=needed(fields, "customer"),
        numbers=numbers,
        customer_reference=fields.get("customer_reference"),
        port_type=fields.get("type"),
        losing_carrier=fields.get("losing_carrier"),
        gaining_carrier=fields.get("gaining_carrier"),
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    location = {hdrs.LOCATION: f"/v1/orders/{view.order.id}"}
    return await answer(request, order_json(view), status=201, headers=location)


async def show_order(request: web.Request) -> web.Response:
    """Show an order, its numbers masked, with its documents."""
    view = await orders.show_order(vault_of(request), principal_of(request), identity_of(request))
    return await answer(request, order_json(view))


async def change_order(request: web.Request) -> web.Response:
    """Move an order along the carrier's status axis."""
    fields = await json_fields(request, status=str, effective_at=str)
    try:
        status = Status(needed(fields, "status"))
    except ValueError:
        raise InvalidRequestError(f"status must be one of {', '.join(Status)}") from None
    view = await orders.change_order(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        status,
        _moment(fields.get("effective_at")),
    )
    return await answer(request, order_json(view))


async def correct_order(request: web.Request) -> web.Response:
    """Correct an order's details; what is not named stays, and "" takes it away."""
    fields = await json_fields(
        request,
        numbers=list,
        customer_reference=str,
        type=str,
        losing_carrier=str,
        gaining_carrier=str,
        customer=str,
    )
    numbers = fields.get("numbers")
    if numbers is not None and not all(isinstance(number, str) for number in numbers):
        raise InvalidRequestError("numbers must be a list of strings")
    view = await correct.correct_order(
        vault_of(request), principal_of(request), identity_of(request), correct.Changed(**fields)
    )
    return await answer(request, order_json(view))


def _moment(text: str | None) -> datetime | None:
    """Return a time as it was sent; whether it may be that time is the action's to say."""
    try:
        return parse_time(text) if text is not None else None
    except ValueError:
        raise InvalidRequestError(
            "effective_at must be a time like 2026-03-01T12:00:00Z, of the years 1900 to 2199"
        ) from None


async def ingest_document(request: web.Request) -> web.Response:
    """Take a document into custody; the body is the file."""
    vault = vault_of(request)
    kind = parse_kind(request.query.get("kind", ""))
    if kind is None:
        raise InvalidRequestError(f"say what it is: ?kind={', '.join(Kind)}")
    upload = Upload(
        body=upload_body(request, vault.config),
        media_type=request.headers.get(hdrs.CONTENT_TYPE),
        filename=check_filename(_filename(request.headers.get(hdrs.CONTENT_DISPOSITION, ""))),
        size_bytes=request.content_length,
        sha256=content_digest(request.headers.getall("Content-Digest", [])),
    )
    began_at = vault.clock()
    document = await ingest(
        vault,
        principal_of(request),
        identity_of(request),
        kind,
        upload,
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    standing = await standing_of(vault, principal_of(request), document)
    shown = document_json(document, standing, filename=upload.filename)
    # None is made unless it is sent, and none is kept: it would tell the content without a key.
    shown["digest"] = "checked" if upload.sha256 is not None else "none"
    # One that came earlier under the same Idempotency-Key; by the clock of whoever took it then.
    shown["earlier"] = document.received_at < began_at
    headers = {hdrs.LOCATION: f"/v1/documents/{document.id}"}
    return await answer(request, shown, status=201, headers=headers)


async def upload_body(request: web.Request, config: Config) -> AsyncIterator[bytes]:
    """Yield the body as it comes; raises `TruncatedUploadError` when it ends early or is slow."""
    stopping, pace = request.app[STOPPING], Pace(config)

    async def more(seconds: float) -> bytes:
        return await stopping.within(seconds, request.content.readany())

    try:
        while True:
            # What is there needs no time limit, and no copy; there is at most what aiohttp holds.
            if chunk := request.content.read_nowait():
                pace.add(len(chunk))
            elif not request.content.at_eof():
                chunk = await pace.within(more)
            if not chunk:
                return
            yield chunk
    except web.RequestPayloadError:
        raise TruncatedUploadError from None


def _filename(disposition: str) -> str | None:
    """Return the file's name; `filename*` is the better one of two (RFC 6266, 4.3)."""
    found = dict[str, str]()
    # Some send the parameters alone.
    said = disposition if "=" not in disposition.partition(";")[0] else ";" + disposition
    for name, value in _PARAMETER.findall(said):
        found.setdefault(name.lower(), value.strip())
    charset, _, rest = found.get("filename*", "").strip('"').partition("'")
    if charset.lower() in _CHARSETS:
        with suppress(UnicodeDecodeError):
            encoded = rest.partition("'")[2]
            return unquote(encoded, encoding=_CHARSETS[charset.lower()], errors="strict") or None
    plain = found.get("filename")
    if plain is None:
        return None
    if plain.startswith('"'):
        plain = _ESCAPED.sub(r"\1", plain[1:-1])
    return readable(plain)


def content_digest(values: list[str]) -> bytes | None:
    """Return the SHA-256 of RFC 9530's Content-Digest; other algorithms are refused."""
    if not values:
        return None
    match = _SHA256.search(",".join(values))
    try:
        digest = b64decode(match[1], validate=True) if match else b""
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise InvalidRequestError("Content-Digest must be sha-256=:BASE64:")
    return digest


async def show_document(request: web.Request) -> web.Response:
    """Show a document's metadata, custody and retention."""
    found = await describe(vault_of(request), principal_of(request), identity_of(request))
    return await answer(
        request, document_json(found.document, found.standing, filename=found.filename)
    )


async def read_content(request: web.Request) -> web.StreamResponse:
    """Hand out a document's bytes to who says why."""
    async with open_content(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        purpose=request.headers.get("Access-Purpose"),
        reference=request.headers.get("Access-Reference"),
        approval=header_id(request, "Access-Approval"),
    ) as content:
        name = quote(content.filename or str(content.document.id), safe="")
        return await hand_out(
            request,
            content.chunks,
            size_bytes=content.document.size_bytes or 0,
            media_type=content.document.media_type or "application/octet-stream",
            headers={
                hdrs.CONTENT_DISPOSITION: f"attachment; filename*=UTF-8''{name}",
                RECEIPT: content.receipt,
            },
        )
