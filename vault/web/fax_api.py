"""The handlers of `/v1/faxes`: from HTTP to an action and back."""

from enum import StrEnum
from typing import TypeVar

from aiohttp import hdrs, web

from vault.actions import fax_delivery as fax_ending
from vault.actions import fax_delivery as fax_reading
from vault.actions import fax_intake as faxes
from vault.actions.fax_intake import Incoming
from vault.actions.once import encode_cursor
from vault.domain.access import Purpose
from vault.domain.faxes import FACTS, Channel, Direction, State, check_facts
from vault.domain.records import HEADER as RECEIPT
from vault.errors import InvalidRequestError
from vault.web.api import content_digest, upload_body
from vault.web.fax_schemas import fax_json
from vault.web.requests import (
    hand_out,
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    query_flag,
    time_cursor,
    vault_of,
)

W = TypeVar("W", bound=StrEnum)

_NUMBERS = ("from", "to")
_RECEIVE = frozenset({"region", "direction", *_NUMBERS, *FACTS})
_LIST = frozenset({"direction", "state", "channel", "limit", "cursor"})


def _number(request: web.Request, name: str) -> str | None:
    """Return a number of the query, whose plus sign arrives as a space where it was not escaped."""
    text = request.query.get(name)
    return "+" + text[1:] if text and text[0] == " " else text


async def submit_fax(request: web.Request) -> web.Response:
    """Take a fax into custody; the body is the fax."""
    vault, query = vault_of(request), request.query
    if unknown := set(query) - _RECEIVE:
        raise InvalidRequestError(f"there is no parameter {min(unknown)!r}")
    incoming = Incoming(
        body=upload_body(request, vault.config),
        direction=query.get("direction", ""),
        caller=_number(request, "from"),
        callee=_number(request, "to") or "",
        region=query.get("region"),
        media_type=request.headers.get(hdrs.CONTENT_TYPE),
        size_bytes=request.content_length,
        sha256=content_digest(request.headers.getall("Content-Digest", [])),
        facts={name: query[name] for name in FACTS if name in query},
    )
    fax = await faxes.receive_fax(
        vault,
        principal_of(request),
        incoming,
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    location = {hdrs.LOCATION: f"/v1/faxes/{fax.id}"}
    return web.json_response(fax_json(fax), status=201, headers=location)


async def list_faxes(request: web.Request) -> web.Response:
    """List the faxes of one's regions, newest first."""
    if unknown := set(request.query) - _LIST:
        raise InvalidRequestError(f"there is no filter {min(unknown)!r}")
    limit = page_limit(request)
    state = _word(request, "state", State)
    found = await fax_reading.list_faxes(
        vault_of(request),
        principal_of(request),
        direction=_word(request, "direction", Direction),
        states=[state] if state else None,
        channel=_word(request, "channel", Channel),
        before=time_cursor(request),
        limit=limit + 1,
    )
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].received_at, page[-1].id) if more else None
    return web.json_response({"data": [fax_json(fax) for fax in page], "next_cursor": cursor})


def _word(request: web.Request, name: str, words: type[W]) -> W | None:
    text = request.query.get(name)
    try:
        return words(text) if text else None
    except ValueError:
        raise InvalidRequestError(f"{name} must be one of {', '.join(words)}") from None


async def show_fax(request: web.Request) -> web.Response:
    """Show a fax, or its receipt."""
    fax = await fax_reading.describe_fax(
        vault_of(request), principal_of(request), identity_of(request)
    )
    return web.json_response(fax_json(fax))


async def read_fax(request: web.Request) -> web.StreamResponse:
    """Hand out a fax to who delivers it, with the numbers in headers."""
    async with fax_reading.open_fax(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        purpose=request.headers.get("Access-Purpose", Purpose.DELIVER_FAX),
        alone=query_flag(request, "alone"),
    ) as opened:
        return await hand_out(
            request,
            opened.chunks,
            size_bytes=opened.fax.size_bytes,
            media_type=opened.fax.media_type,
            headers={
                "Fax-To": opened.numbers.callee,
                "Fax-From": opened.numbers.caller or "anonymous",
                RECEIPT: opened.receipt,
            },
        )


async def deliver_fax(request: web.Request) -> web.Response:
    """Acknowledge that a fax was delivered: it is shredded, and the receipt stays."""
    # There may be no body at all: nothing has to be said.
    fields = await json_fields(request, result=str) if request.can_read_body else {}
    result = fields.get("result")
    fax = await fax_ending.deliver_fax(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        result=check_facts({"message": result})["message"] if result else None,
    )
    return web.json_response(fax_json(fax))


async def fail_fax(request: web.Request) -> web.Response:
    """Say that a delivery failed: it is tried again later, or never."""
    fields = await json_fields(request, reason=str, final=bool)
    fax = await fax_ending.fail_fax(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        reason=needed(fields, "reason"),
        final=bool(fields.get("final")),
    )
    return web.json_response(fax_json(fax))
