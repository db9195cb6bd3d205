"""The routes of documents."""

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import hdrs, web

from vault.actions import holds as restrict
from vault.actions.correct import correct_kind
from vault.actions.ingest import Pace, Upload, check_filename, ingest
from vault.actions.read import describe, open_content
from vault.actions.retention import Standing, standing_of
from vault.actions.shred import shred
from vault.config.settings import Config
from vault.domain.access import Purpose
from vault.domain.documents import (
    HEIC,
    JPEG,
    PDF,
    PNG,
    TIFF,
    Custody,
    Document,
    Ground,
    Kind,
    parse_kind,
    readable,
)
from vault.domain.holds import Restriction
from vault.domain.records import HEADER as RECEIPT
from vault.domain.retention import Verdict
from vault.errors import InvalidRequestError, TruncatedUploadError
from vault.web.holds import _maybe_id, hold_json
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
from vault.web.route import (
    ID,
    IDEMPOTENCY,
    KIND,
    Parameter,
    Route,
    one_of,
    recovered_json,
    time_text,
)


def document_json(
    document: Document, standing: Standing | None, *, filename: str | None = None
) -> dict[str, Any]:
    """Return a document; beyond use and irrecoverable are two times, always shown apart."""
    shown: dict[str, Any] = {
        "id": str(document.id),
        "order": str(document.order_id),
        "region": document.region,
        "kind": document.kind.value,
        "custody": document.custody.value,
        "media_type": document.media_type,
        "size_bytes": document.size_bytes,
        "received_at": time_text(document.received_at),
        "stored_at": time_text(document.stored_at),
        "beyond_use_since": time_text(document.shredded_at),
        "irrecoverable_since": time_text(document.sealed_at),
        "held": standing is not None and standing.held,
        "holds": [hold_json(hold) for hold in standing.holds] if standing else [],
        "restriction": restriction_json(standing.restriction) if standing else None,
        **recovered_json(document.recovered_at, document.not_known),
    }
    if document.custody is Custody.STORED:
        shown["filename"] = filename
        if standing is not None and standing.verdict is not None:
            shown["retention"] = verdict_json(standing.verdict)
    else:
        shown["shred_reason"] = document.shred_reason
        shown["shred_ground"] = document.shred_ground
        shown["shred_approved_by"] = document.shred_approved_by
        shown["replaced_by"] = str(document.replaced_by) if document.replaced_by else None
    return shown


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return why a document is here and until when."""
    return {
        "state": verdict.state.value,
        "due_at": time_text(verdict.due_at),
        "floor_at": time_text(verdict.floor_at),
        "reason": verdict.sentence,
        "row": verdict.rule.row,
        "citation": verdict.citation,
    }


def restriction_json(restriction: Restriction | None) -> dict[str, Any] | None:
    """Return a restriction, None where there is none."""
    if restriction is None:
        return None
    return {
        "reason": restriction.reason,
        "by": restriction.placed_by,
        "since": time_text(restriction.placed_at),
    }


# ---- The handlers of `/v1`: from HTTP to an action and back. ------------------------------------
#
# No rule stands here. A handler parses at the edge, calls one action, and shapes the answer.

#: A parameter of a header (RFC 9110, 5.6.6); a value that is not quoted may hold spaces.
_PARAMETER = re.compile(r""";\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)""", re.ASCII)
#: RFC 8187: its character sets, those of ISO 8859-1 as browsers read them.
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "cp1252"}
_ESCAPED = re.compile(r"\\(.)")
_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


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


async def shred_document(request: web.Request) -> web.Response:
    """Put a document beyond use."""
    fields = await json_fields(request, reason=str, ground=str, approval=str, replaced_by=str)
    try:
        ground = Ground(fields.get("ground") or Ground.NOT_NEEDED)
    except ValueError:
        raise InvalidRequestError(f"ground must be one of {', '.join(Ground)}") from None
    document = await shred(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        needed(fields, "reason"),
        ground,
        approval=_maybe_id(fields, "approval"),
        replaced_by=_maybe_id(fields, "replaced_by"),
    )
    return await _document(request, document)


async def correct_document(request: web.Request) -> web.Response:
    """Say that a document is of another kind."""
    fields = await json_fields(request, kind=str, approval=str)
    kind = parse_kind(needed(fields, "kind"))
    if kind is None:
        raise InvalidRequestError(f"kind must be one of {', '.join(Kind)}")
    document = await correct_kind(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        kind,
        _maybe_id(fields, "approval"),
    )
    return await _document(request, document)


async def restrict_document(request: web.Request) -> web.Response:
    """Let nobody read a document for the time being."""
    fields = await json_fields(request, reason=str)
    reason = needed(fields, "reason")
    document = await restrict.restrict(
        vault_of(request), principal_of(request), identity_of(request), reason
    )
    return await _document(request, document)


async def unrestrict_document(request: web.Request) -> web.Response:
    """Let a document be read again."""
    fields = await json_fields(request, reason=str)
    reason = needed(fields, "reason")
    document = await restrict.unrestrict(
        vault_of(request), principal_of(request), identity_of(request), reason
    )
    return await _document(request, document)


async def _document(request: web.Request, document: Document) -> web.Response:
    standing = await standing_of(vault_of(request), principal_of(request), document)
    return await answer(request, document_json(document, standing))


# ---- Documents. ---------------------------------------------------------------------------------

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{id}/documents",
        ingest_document,
        "Take a document into custody",
        201,
        "Document",
        body="file",
        files=(PDF, JPEG, PNG, TIFF, HEIC),
        query={"kind": Parameter("What it is; other usual names are taken, too.", KIND, True)},
        headers={
            **IDEMPOTENCY,
            "Content-Disposition": Parameter(
                "attachment; filename=…; kept encrypted with the document."
            ),
            "Content-Digest": Parameter("sha-256=:BASE64:; checked where it is sent."),
        },
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/documents/{id}",
        show_document,
        "Show a document's custody and retention",
        200,
        "Document",
    ),
    Route(
        "GET",
        "/v1/documents/{id}/content",
        read_content,
        "Read a document for a stated purpose",
        200,
        "application/octet-stream",
        headers={
            "Access-Purpose": Parameter("Why it is read.", one_of(Purpose), True),
            "Access-Reference": Parameter("The ticket or order that some purposes need."),
            "Access-Approval": Parameter("The approved disclosure, where the role needs one.", ID),
        },
        refusals=(409, 410, 422, 423, 451),
    ),
)
