"""What a request says: who asks, and its parts, parsed at the edge; what is wrong is named."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from aiohttp import hdrs, web
from aiohttp.typedefs import LooseHeaders

from vault.actions.ingest import too_large
from vault.actions.once import decode_cursor
from vault.actions.people import named
from vault.actions.read import Outgoing
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.text import parse_time
from vault.errors import (
    InvalidRequestError,
    TruncatedUploadError,
    UnavailableError,
    UnreadableError,
)
from vault.process.streams import keep_unsent_small, unsent_bytes
from vault.web.problems import STREAMING

T = TypeVar("T")


class Stopping:
    """Whether this process is being stopped, and the bodies that it still waits for."""

    def __init__(self) -> None:
        self.begun = self.refusing = False
        self._waits: set[asyncio.Timeout] = set()

    def refuse(self) -> None:
        """Wait for no body any more: what has not come is refused, with an answer."""
        self.refusing = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)

    async def within(self, seconds: float, step: Awaitable[T]) -> T:
        """Wait for bytes of a body; raises TimeoutError, or `UnavailableError` at the end."""
        try:
            async with asyncio.timeout(0 if self.refusing else seconds) as wait:
                self._waits.add(wait)
                try:
                    return await step
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if self.refusing:
                raise UnavailableError("the vault is being stopped; send it again, whole") from None
            raise


VAULT = web.AppKey("vault", Vault)
STOPPING = web.AppKey("stopping", Stopping)
PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)

BODY_CHUNK_BYTES = 64 * 1024
JSON_BYTES_MAX = 64 * 1024
#: How long the first pause is while an answer waits to be sent, and the longest.
SENT_PAUSE_SECONDS, SENT_PAUSE_SECONDS_MAX = 0.001, 0.05
PAGE_DEFAULT, PAGE_MAX = 50, 200
#: What PostgreSQL takes for a bigint has one more.
NUMBER_DIGITS_MAX = 18
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def vault_of(request: web.Request) -> Vault:
    """Return the vault that is served."""
    return request.app[VAULT]


def principal_of(request: web.Request) -> Principal:
    """Return who asks."""
    return request[PRINCIPAL]


def identity_of(request: web.Request) -> UUID:
    """Return the id in the path; a word that is not an id is not found, and is said to be none."""
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise web.HTTPNotFound(
            reason="The address has no id in it: an id is a UUID, as the answer that made the "
            "thing gave it."
        ) from None


async def json_fields(request: web.Request, **kinds: type) -> dict[str, Any]:
    """Parse a JSON object; `kinds` names the fields and their types, those unknown are refused."""
    raw = await small_body(request, JSON_BYTES_MAX)
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise UnreadableError("the body must be JSON, and not nested deeply") from None
    if not isinstance(fields, dict):
        raise InvalidRequestError("the body must be a JSON object")
    _check_text(fields)
    for name, value in fields.items():
        if name not in kinds:
            raise InvalidRequestError(f"there is no field {name!r}; known: {', '.join(kinds)}")
        if value is not None and not isinstance(value, kinds[name]):
            raise InvalidRequestError(f"{name} must be a {kinds[name].__name__}")
    return fields


def _check_text(parsed: object) -> None:
    """Raise for text that is none: with NUL, which no database keeps, or half of a character."""
    left: list[object] = [parsed]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and _NO_TEXT.search(value):
            raise InvalidRequestError("text must be Unicode without NUL and without surrogates")


async def form_fields(request: web.Request) -> dict[str, str]:
    """Parse a form without files: the library would spool those to a disk."""
    raw = await small_body(request, JSON_BYTES_MAX)
    return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))


async def small_body(request: web.Request, size_max: int) -> bytes:
    """Return a body that has no reason to take longer than a pause in a large one may."""
    idle_seconds = vault_of(request).config.upload_idle_seconds
    try:
        return await request.app[STOPPING].within(idle_seconds, _read_small(request, size_max))
    except TimeoutError:
        raise TruncatedUploadError(f"the body took more than {idle_seconds:g} seconds") from None
    except web.RequestPayloadError:
        raise TruncatedUploadError from None


async def _read_small(request: web.Request, size_max: int) -> bytes:
    if (request.content_length or 0) > size_max:
        raise too_large(size_max)
    raw = bytearray()
    with vault_of(request).memory.share(of_stranger=PRINCIPAL not in request) as share:
        async for chunk in request.content.iter_chunked(BODY_CHUNK_BYTES):
            share.grow(len(chunk))
            raw += chunk
            if len(raw) > size_max:
                raise too_large(size_max)
    return bytes(raw)


async def answer(
    request: web.Request, shown: Any, *, status: int = 200, headers: LooseHeaders | None = None
) -> web.Response:
    """Answer with JSON; what each principal in it was called then stands beside it."""
    return web.json_response(await named(vault_of(request), shown), status=status, headers=headers)


async def hand_out(
    request: web.Request,
    chunks: Outgoing,
    *,
    size_bytes: int | None,
    media_type: str,
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """
    Answer with a stream as it comes, the only one that there is; there are no ranges of it.

    Returns when nothing of it waits here any more: until then, it may be cut.
    """
    small = size_bytes is not None and size_bytes <= BODY_CHUNK_BYTES
    if small:
        # At this size it is verified before its status is sent, and goes out with it.
        response: web.StreamResponse = web.Response(body=await chunks.whole())
        first = b""
    else:
        # Nothing is said before it has verified as far as this.
        first = await anext(aiter(chunks), b"")
        response = web.StreamResponse()
        response.content_length = size_bytes
    response.content_type = media_type
    response.headers[hdrs.ACCEPT_RANGES] = "none"
    response.headers.update(headers)
    request[STREAMING] = response
    if small:
        await _taken_in_time(request, _send_whole(request, response))
    else:
        if request.transport is not None:
            keep_unsent_small(request.transport)
        await _taken_in_time(request, response.prepare(request))
        await _taken_in_time(request, response.write(first))
        async for chunk in chunks:
            await _taken_in_time(request, response.write(chunk))
        await _taken_in_time(request, response.write_eof())
    await _wait_sent(request)
    return response


async def _send_whole(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write_eof()


async def _taken_in_time(request: web.Request, step: Awaitable[object]) -> None:
    """Await a piece's way out; a reader that takes nothing of it for too long is cut off."""
    try:
        async with asyncio.timeout(vault_of(request).config.idle_seconds):
            await step
    except TimeoutError:
        raise ConnectionAbortedError("the reader took nothing") from None


async def _wait_sent(request: web.Request) -> None:
    """Wait until nothing of the answer is left here; the reader has as long for each byte."""
    pause, left = SENT_PAUSE_SECONDS, 0
    idle_seconds = vault_of(request).config.idle_seconds
    give_up_at = time.monotonic() + idle_seconds
    while (transport := request.transport) is not None and not transport.is_closing():
        now_left = unsent_bytes(transport)
        if now_left == 0:
            return
        if now_left != left:
            left, give_up_at = now_left, time.monotonic() + idle_seconds
        elif time.monotonic() > give_up_at:
            raise ConnectionAbortedError("the reader took nothing")
        await asyncio.sleep(pause)
        pause = min(2 * pause, SENT_PAUSE_SECONDS_MAX)
    if left:
        raise ConnectionResetError("the reader went before it had the rest")


def needed(fields: dict[str, Any], name: str) -> Any:
    """Return a field that must be there."""
    if fields.get(name) is None:
        raise InvalidRequestError(f"{name} is missing")
    return fields[name]


def page_limit(request: web.Request) -> int:
    """Return how many rows a page has."""
    text = request.query.get("limit", str(PAGE_DEFAULT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= PAGE_MAX:
        raise InvalidRequestError(f"limit must be 1 to {PAGE_MAX}")
    return int(text)


def query_id(request: web.Request, name: str) -> UUID | None:
    """Return an id of the query."""
    text = request.query.get(name)
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidRequestError(f"{name} must be an id") from None


def header_id(request: web.Request, name: str) -> UUID | None:
    """Return an id of the headers."""
    text = request.headers.get(name)
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidRequestError(f"{name} must be an id") from None


def query_flag(request: web.Request, name: str) -> bool:
    """Return whether a flag of the query is set."""
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequestError(f"{name} must be true or false")
    return text == "true"


def query_time(request: web.Request, name: str) -> datetime | None:
    """Return a time of the query, aware; a date is its first moment in UTC."""
    text = request.query.get(name)
    # A plus sign that was not escaped arrives as a space.
    return time_of(name, text.replace(" ", "+") if text else None)


def time_of(name: str, text: str | None) -> datetime | None:
    """Return a time by its text, in the same way."""
    if not text:
        return None
    try:
        at = parse_time(text)
    except ValueError:
        raise InvalidRequestError(
            f"{name} must be a time like 2025-03-01T00:00:00Z, or a date (in UTC), of the years "
            "1900 to 2199"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def time_cursor(request: web.Request) -> tuple[datetime, UUID] | None:
    """Return where the page begins in a list that is sorted by time and id."""
    text = request.query.get("cursor")
    return decode_cursor(text) if text else None


def number_cursor(request: web.Request) -> int | None:
    """Return where the page begins in a list that is sorted by number."""
    text = request.query.get("cursor")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise InvalidRequestError("cursor is not one that was handed out")
    return int(text)
