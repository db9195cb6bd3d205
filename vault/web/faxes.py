"""The routes of faxes."""

from enum import StrEnum
from typing import Any, TypeVar

from aiohttp import hdrs, web

from vault.actions import fax_delivery as fax_ending
from vault.actions import fax_delivery as fax_reading
from vault.actions import fax_intake as faxes
from vault.actions.fax_intake import Incoming
from vault.actions.once import encode_cursor
from vault.actions.policy import SeenFax
from vault.domain.access import Purpose
from vault.domain.documents import PDF, TIFF
from vault.domain.faxes import FACTS, Channel, Direction, Fax, State, check_facts
from vault.domain.records import HEADER as RECEIPT
from vault.errors import InvalidRequestError
from vault.web.documents import content_digest, upload_body
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
from vault.web.route import (
    BOOLEAN,
    ID,
    IDEMPOTENCY,
    MAYBE_STRING,
    MAYBE_TIME,
    PAGE,
    RECOVERED,
    REGION,
    STRING,
    TIME,
    Parameter,
    Route,
    one_of,
    recovered_json,
    structure,
    time_text,
)

# ---- JSON shapes of faxes. ----------------------------------------------------------------------

FAX_SCHEMAS: dict[str, Any] = {
    "Fax": structure(
        {
            "id": ID,
            "region": REGION,
            "direction": one_of(Direction),
            "channel": one_of(Channel),
            "state": one_of(State),
            "custody": one_of(("stored", "shredded", "sealed")),
            "media_type": STRING,
            "size_bytes": {"type": "integer"},
            "pages": {"type": "integer"},
            "from_masked": MAYBE_STRING,
            "to_masked": STRING,
            "facts": {"type": "object", "additionalProperties": STRING},
            "attempts": {"type": "integer"},
            "next_attempt_at": MAYBE_TIME,
            "result": MAYBE_STRING,
            "received_at": TIME,
            "ended_at": MAYBE_TIME,
            "beyond_use_since": MAYBE_TIME,
            "irrecoverable_since": MAYBE_TIME,
        },
        {"expires_at": MAYBE_TIME, **RECOVERED},
    ),
    "FaxPage": structure(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Fax"}},
            "next_cursor": MAYBE_STRING,
        }
    ),
    "FaxDelivered": structure({}, {"result": MAYBE_STRING}),
    "FaxFailed": structure({"reason": STRING}, {"final": {"type": "boolean"}}),
}


def seen_json(seen: SeenFax) -> dict[str, Any]:
    """Return a fax with the time at which it is shredded at the latest, while it waits."""
    return {**fax_json(seen.fax), "expires_at": time_text(seen.expires_at)}


def fax_json(fax: Fax) -> dict[str, Any]:
    """Return a fax; once it has ended this is its receipt, which has nothing of its content."""
    return {
        "id": str(fax.id),
        "region": fax.region,
        "direction": fax.direction.value,
        "channel": fax.channel.value,
        "state": fax.state.value,
        "custody": fax.custody.value,
        "media_type": fax.media_type,
        "size_bytes": fax.size_bytes,
        "pages": fax.pages,
        "from_masked": fax.caller_masked,
        "to_masked": fax.callee_masked,
        "facts": dict(fax.facts),
        "attempts": fax.attempts,
        "next_attempt_at": None if fax.ended_at else time_text(fax.next_attempt_at),
        "result": fax.result,
        "received_at": time_text(fax.received_at),
        "ended_at": time_text(fax.ended_at),
        "beyond_use_since": time_text(fax.ended_at),
        "irrecoverable_since": time_text(fax.sealed_at),
        **recovered_json(fax.recovered_at, fax.not_known),
    }


# ---- The handlers of `/v1/faxes`: from HTTP to an action and back. ------------------------------

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
    cursor = encode_cursor(page[-1].fax.received_at, page[-1].fax.id) if more else None
    return web.json_response({"data": [seen_json(seen) for seen in page], "next_cursor": cursor})


def _word(request: web.Request, name: str, words: type[W]) -> W | None:
    text = request.query.get(name)
    try:
        return words(text) if text else None
    except ValueError:
        raise InvalidRequestError(f"{name} must be one of {', '.join(words)}") from None


async def show_fax(request: web.Request) -> web.Response:
    """Show a fax, or its receipt."""
    seen = await fax_reading.describe_fax(
        vault_of(request), principal_of(request), identity_of(request)
    )
    return web.json_response(seen_json(seen))


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


# ---- Faxes. -------------------------------------------------------------------------------------

ROUTES = (
    Route(
        "POST",
        "/v1/faxes",
        submit_fax,
        "Take a fax into custody",
        201,
        "Fax",
        body="file",
        files=(TIFF, PDF),
        query={
            "region": Parameter("The recipient's, where the number does not tell it.", REGION),
            "direction": Parameter("Which way it goes.", one_of(Direction), True),
            "from": Parameter("E.164; left out or `anonymous` where the caller withholds it."),
            "to": Parameter("E.164.", required=True),
            **dict.fromkeys(FACTS, Parameter("What the gateway knows of the call.")),
        },
        headers={
            **IDEMPOTENCY,
            "Content-Digest": Parameter("sha-256=:BASE64:; checked where it is sent."),
        },
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/faxes",
        list_faxes,
        "List faxes and receipts, newest first",
        200,
        "FaxPage",
        query={
            "direction": Parameter("Only those that go this way.", one_of(Direction)),
            "state": Parameter("Only those in this state.", one_of(State)),
            "channel": Parameter("Only those that came by this.", one_of(Channel)),
            **PAGE,
        },
        refusals=(422,),
    ),
    Route("GET", "/v1/faxes/{id}", show_fax, "Show a fax, or its receipt", 200, "Fax"),
    Route(
        "GET",
        "/v1/faxes/{id}/content",
        read_fax,
        "Fetch a fax to deliver it",
        200,
        "application/octet-stream",
        query={"alone": Parameter("Not while another attempt is under way (409).", BOOLEAN)},
        headers={
            "Access-Purpose": Parameter(
                "deliver-fax, which is meant where it is left out.", one_of(Purpose)
            )
        },
        refusals=(409, 410, 422, 423, 451),
    ),
    Route(
        "POST",
        "/v1/faxes/{id}/actions/deliver",
        deliver_fax,
        "Acknowledge that a fax was delivered",
        200,
        "Fax",
        body="FaxDelivered",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/faxes/{id}/actions/fail",
        fail_fax,
        "Say that a delivery failed",
        200,
        "Fax",
        body="FaxFailed",
        refusals=(409, 422),
    ),
)
