"""
The one table from errors to RFC 9457 problems.

Anything that is not in it is a plain 500 with an id that stands in the log, too. No detail of a
cryptographic failure, and nothing of a request's content, ever reaches a problem.
"""

import json
import logging
import uuid
from collections.abc import Awaitable, Callable

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
from vault.actions.once import KeyReusedError
from vault.domain.access import PurposeError
from vault.unsent import reset

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
MEDIA_TYPE = "application/problem+json"
#: The type of the problem that something is damaged at rest.
DAMAGED_TYPE = "urn:portvault:problem:damaged"

#: The answer whose status is on its way already, where there is one.
STREAMING: web.RequestKey[web.StreamResponse] = web.RequestKey("streaming", web.StreamResponse)

STATUS: dict[type[Exception], int] = {
    errors.InvalidRequestError: 422,
    PurposeError: 422,
    KeyReusedError: 422,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.ShreddedError: 410,
    KeyDestroyedError: 410,
    errors.TooLargeError: 413,
    errors.UnsupportedTypeError: 415,
    errors.ContentRefusedError: 422,
    errors.DigestMismatchError: 422,
    errors.TruncatedUploadError: 400,
    errors.LockedError: 423,
    errors.LimitError: 429,
    errors.ResidencyError: 451,
    errors.UnavailableError: 503,
    CustodianUnavailableError: 503,
    KeyMissingError: 503,
    CustodianConfigurationError: 503,
    KeysUnavailableError: 503,
    RolledBackError: 503,
    StaleScopeError: 503,
    errors.ObjectMissingError: 500,
    DamagedError: 503,
    IntegrityError: 500,
}

TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Shredded",
    413: "Too large",
    415: "Type not accepted",
    422: "Not acceptable as sent",
    423: "Locked",
    429: "Too many requests",
    431: "Headers too large",
    451: "May not leave its region",
    500: "Internal error",
    503: "Temporarily unavailable",
}


def problem(status: int, detail: str, **extra: object) -> web.Response:
    """Return a problem response."""
    body = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        **extra,
    }
    response = web.Response(status=status, text=json.dumps(body), content_type=MEDIA_TYPE)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="portvault"'
    return response


def status_of(error: Exception) -> int | None:
    """Return the status an error means; None for our own bugs."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return None


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem; the connection of a half-sent answer is cut instead."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return problem(error.status, error.reason)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a problem
        status = status_of(error)
        if isinstance(error, ConnectionError) or STREAMING in request:
            log.info("connection cut: %s", type(error).__name__)
            return _cut(request)
        if isinstance(error, DamagedError):
            return _damaged()
        if status is not None and status != 500:
            answer = problem(status, str(error), **_tombstone(request, error))
            if isinstance(error, errors.LimitError):
                answer.headers["Retry-After"] = str(error.retry_after_seconds)
            return answer
        # Type and place only: a message may quote what was being handled.
        incident = str(uuid.uuid4())
        log.exception("incident %s", incident) if status is None else log.error(
            "incident %s: %s", incident, type(error).__name__
        )
        return problem(500, "something went wrong on our side", incident=incident)


def _damaged() -> web.Response:
    """Return the problem for what is damaged where it lies; where that is, the log says."""
    answer = problem(
        503,
        "this is damaged where it is kept, so nothing of it was handed out; it was not shredded, "
        "and asking again does not help before whoever runs the vault has mended it: "
        "`portvault doctor` says what to do",
        type=DAMAGED_TYPE,
        title="Damaged",
    )
    del answer.headers["Retry-After"]
    return answer


def _tombstone(request: web.Request, error: Exception) -> dict[str, object]:
    """Return what is left of a shredded document: where its certificate is."""
    identity = request.match_info.get("id")
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
    return request.get(STREAMING) or problem(503, "the connection was lost")
