"""
The one table of RFC 9457 problems: the type, status and title of each, and the errors that mean it.

An error that is not in it is `internal`, with an id that stands in the log, too. No detail of a
cryptographic failure, nothing of a request's content, and no path or address of the server ever
reaches a problem: of a part that is away the answer says so and whom to tell, the log says why.
"""

import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from keys.damage import DamagedError
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
    KeysUnavailableError,
    RolledBackError,
    StaleScopeError,
)
from vault import errors
from vault.actions.once import KeyEndedError, KeyReusedError
from vault.domain.access import PurposeError
from vault.domain.placement import PlacementError
from vault.process.outages import Outages
from vault.process.streams import reset
from vault.web.route import ID, MAYBE_STRING, STRING, TIME, enumeration, structure

log = logging.getLogger(__name__)
_outages = Outages(log)

RETRY_AFTER_SECONDS = 5
MEDIA_TYPE = "application/problem+json"
#: What each type's URI begins with. A type keeps its URI and its status for good.
BASE = "urn:portvault:problem:"

#: The answer whose status is on its way already, where there is one.
STREAMING: web.RequestKey[web.StreamResponse] = web.RequestKey("streaming", web.StreamResponse)


@dataclass(frozen=True, slots=True)
class ProblemType:
    """What a program may tell problems apart by; `docs/api.md` says what to do about each."""

    name: str
    status: int
    title: str
    #: The errors that mean this, with those derived from them that mean nothing else.
    errors: tuple[type[Exception], ...] = ()
    #: What is said of a part that is away, in place of the error's own words: those are for the
    #: operator, and may name a path, a host or an address. They stand in the log.
    away: str = ""

    @property
    def uri(self) -> str:
        """The type's URI."""
        return BASE + self.name


BAD_REQUEST = ProblemType("bad-request", 400, "Bad request", (errors.UnreadableError,))
TOO_LARGE = ProblemType("too-large", 413, "Too large", (errors.TooLargeError,))
UNSUPPORTED = ProblemType(
    "unsupported-type", 415, "Type not accepted", (errors.UnsupportedTypeError,)
)
EXPECTATION = ProblemType("expectation", 417, "Expectation not understood")
INTERNAL = ProblemType(
    "internal", 500, "Internal error", (errors.ObjectMissingError, IntegrityError)
)
UNAVAILABLE = ProblemType("unavailable", 503, "Temporarily unavailable", (errors.UnavailableError,))
_TELL = "try again, and if it stays so tell the operator"
NOT_READY = ProblemType("not-ready", 503, "Not ready")
DAMAGED = ProblemType("damaged", 503, "Damaged", (DamagedError,))

#: Every problem that there is. Of each status the first is the one that says no more than it.
TYPES = (
    BAD_REQUEST,
    ProblemType("upload-cut-short", 400, "Upload cut short", (errors.TruncatedUploadError,)),
    ProblemType("unauthenticated", 401, "Not authenticated", (errors.UnauthenticatedError,)),
    ProblemType("forbidden", 403, "Not permitted", (errors.ForbiddenError,)),
    ProblemType("not-found", 404, "Not found", (errors.NotFoundError,)),
    ProblemType("method-not-allowed", 405, "Method not allowed"),
    ProblemType("conflict", 409, "Conflict", (errors.ConflictError,)),
    ProblemType("key-ended", 409, "Idempotency-Key of what has ended", (KeyEndedError,)),
    ProblemType("legal-floor", 409, "Kept by the retention policy", (errors.FloorError,)),
    ProblemType("shredded", 410, "Shredded", (errors.ShreddedError, KeyDestroyedError)),
    ProblemType("left-behind", 410, "Left behind by a restore", (errors.LeftBehindError,)),
    TOO_LARGE,
    UNSUPPORTED,
    EXPECTATION,
    ProblemType("invalid-request", 422, "Not acceptable as sent", (errors.InvalidRequestError,)),
    ProblemType("purpose", 422, "No purpose that allows it", (PurposeError,)),
    ProblemType("key-reused", 422, "Idempotency-Key used before", (KeyReusedError,)),
    ProblemType("misplaced", 422, "In the wrong region", (PlacementError,)),
    ProblemType("content-refused", 422, "Content refused", (errors.ContentRefusedError,)),
    ProblemType("digest-mismatch", 422, "Not what its digest says", (errors.DigestMismatchError,)),
    ProblemType("locked", 423, "Locked", (errors.LockedError,)),
    ProblemType("hold", 423, "Kept by a hold", (errors.HeldError,)),
    ProblemType("restricted", 423, "Restricted", (errors.RestrictedError,)),
    ProblemType("limit", 429, "Too many requests", (errors.LimitError,)),
    ProblemType("residency", 451, "May not leave its region", (errors.ResidencyError,)),
    INTERNAL,
    UNAVAILABLE,
    NOT_READY,
    ProblemType(
        "database-unavailable",
        503,
        "No database",
        (errors.DatabaseUnavailableError,),
        away=f"the database is away; {_TELL}",
    ),
    ProblemType("records-unavailable", 503, "No records", (errors.RecordsUnavailableError,)),
    ProblemType(
        "objects-unavailable",
        503,
        "No objects",
        (errors.ObjectStoreUnavailableError,),
        away=f"the objects are away, or have no room for more; {_TELL}",
    ),
    ProblemType(
        "keys-unavailable",
        503,
        "No keys",
        (
            CustodianUnavailableError,
            KeyMissingError,
            CustodianConfigurationError,
            KeysUnavailableError,
            StaleScopeError,
        ),
        away=f"the keys are away; {_TELL}",
    ),
    DAMAGED,
    ProblemType(
        "rolled-back",
        503,
        "Database rolled back",
        (RolledBackError,),
        away="the database was rolled back, so nothing is done; tell the operator",
    ),
    ProblemType(
        "identity-provider-unavailable",
        503,
        "No identity provider",
        (errors.IdentityProviderUnavailableError,),
        away=errors.IdentityProviderUnavailableError.__doc__ or "",
    ),
    ProblemType("stream-age", 503, "Stream too old", (errors.StreamAgeError,)),
)

#: The fields that a problem may have beside those of RFC 9457.
PROBLEM_SCHEMAS: dict[str, Any] = {
    "ProblemType": enumeration(kind.uri for kind in TYPES),
    "Problem": structure(
        # A string, so that programs take a type that came later than they.
        {
            "type": {
                "type": "string",
                "format": "uri",
                "description": "One of ProblemType, to which later versions may add.",
            },
            "title": STRING,
            "status": {"type": "integer"},
            "detail": STRING,
        },
        {
            "incident": {**ID, "description": "Under which the operator's log has it."},
            "document": {**ID, "description": "The document that was shredded, or has ended."},
            "certificate": {**STRING, "description": "Where its certificate is."},
            "fax": {**ID, "description": "The fax that has ended."},
            "state": {**STRING, "description": "How the document or fax ended."},
            "ended_at": {**TIME, "description": "When the document or fax ended."},
            "result": {**MAYBE_STRING, "description": "Why, as its receipt says it."},
            "regions": {
                "type": "object",
                "description": "The parts of each region that are away.",
                "additionalProperties": {"type": "array", "items": STRING},
            },
        },
    ),
}

_LISTED = "GET /openapi.json lists every address with what it takes"
_OURS = "something went wrong on our side"
_BY_ERROR = {error: kind for kind in TYPES for error in kind.errors}
#: The type of each status that says no more than the status.
BY_STATUS = {kind.status: kind for kind in reversed(TYPES)}


def problem(kind: ProblemType, detail: str, **extra: object) -> web.Response:
    """Return a problem response."""
    body = {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        **extra,
    }
    response = web.Response(status=kind.status, text=json.dumps(body), content_type=MEDIA_TYPE)
    if kind.status == 503 and kind is not DAMAGED:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if kind.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="portvault"'
    return response


def type_of(error: Exception) -> ProblemType | None:
    """Return the problem that an error means; None for our own bugs."""
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            return _BY_ERROR[kind]
    return None


def told(kind: ProblemType, error: Exception) -> str:
    """Return what an answer says of an error; of a part that is away the log says why."""
    if kind in {INTERNAL, DAMAGED}:
        return _OURS
    if not kind.away:
        return str(error)
    _outages.failed(kind.name, str(error) or type(error).__name__)
    return kind.away


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem; the connection of a half-sent answer is cut instead."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _library(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a problem
        kind = type_of(error)
        if isinstance(error, ConnectionError) or STREAMING in request:
            log.info("connection cut: %s", type(error).__name__)
            return _cut(request)
        if kind is DAMAGED:
            return _damaged(request.method)
        if kind is not None and kind is not INTERNAL:
            answer = problem(kind, told(kind, error), **_tombstone(request, error))
            if isinstance(error, errors.LimitError):
                answer.headers["Retry-After"] = str(error.retry_after_seconds)
            return answer
        # Type and place only: a message may quote what was being handled.
        incident = str(uuid.uuid4())
        log.exception("incident %s", incident) if kind is None else log.error(
            "incident %s: %s", incident, type(error).__name__
        )
        return problem(INTERNAL, _OURS, incident=incident)


def _library(error: web.HTTPException) -> web.Response:
    """Return the problem for an answer of the HTTP library's own, with what to do next."""
    kind = BY_STATUS.get(error.status, INTERNAL)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = problem(kind, f"this address takes {allowed} and no {error.method}; {_LISTED}")
        # RFC 9110, 15.5.6.
        answer.headers["Allow"] = allowed
        return answer
    if isinstance(error, web.HTTPNotFound) and error.reason == HTTPStatus.NOT_FOUND.phrase:
        return problem(kind, f"there is nothing at this address; {_LISTED}")
    return problem(kind, error.reason)


def _damaged(method: str) -> web.Response:
    """Return the problem for what is damaged where it lies; where that is, the log says."""
    nothing = "of it was handed out" if method in {"GET", "HEAD"} else "was handed out or kept"
    return problem(
        DAMAGED,
        f"this is damaged where it is kept, so nothing {nothing}; it was not shredded, and asking "
        "again does not help before whoever runs the vault has mended it: "
        "`portvault repair --dry-run` says what to do",
    )


def _tombstone(request: web.Request, error: Exception) -> dict[str, object]:
    """Return what is left of what has ended: of a shredded document where its certificate is."""
    identity = request.match_info.get("id")
    if isinstance(error, KeyEndedError):
        return dict(error.told)
    if not isinstance(error, errors.ShreddedError) or identity is None:
        return {}
    if not request.path.startswith("/v1/documents/"):
        return {}
    return {"document": identity, "certificate": f"/v1/documents/{identity}/certificate"}


def _cut(request: web.Request) -> web.StreamResponse:
    """Cut the connection: once a status is sent, only that tells that this is not the whole."""
    if request.transport is not None:
        # With a reset: what waits in buffers here would go out all the same.
        reset(request.transport)
    return request.get(STREAMING) or problem(UNAVAILABLE, "the connection was lost")
