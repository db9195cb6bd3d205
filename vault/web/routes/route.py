"""What is said of an operation: the server is built from it, and so is the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from vault.web.shapes import Parameter

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: how it is called, what it takes, and what it may answer."""

    method: str
    path: str
    handler: Handler
    summary: str
    #: Status of success, and the schema of its body: a name in SCHEMAS, or a media type.
    success: int
    answer: str
    #: The schema of a JSON body, a media type, or `file` for a document or a fax.
    body: str | None = None
    #: The media types of a file.
    files: tuple[str, ...] = ()
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: Mapping[str, Parameter] = field(default_factory=dict)
    #: Statuses beside those that any authenticated route may answer.
    refusals: tuple[int, ...] = ()
    public: bool = False
    #: Whether a public route takes a token all the same, from who wants to be known.
    knows: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """The operations on one noun."""

    name: str
    text: str
    routes: tuple[Route, ...]


IDEMPOTENCY = {"Idempotency-Key": Parameter("The same key has its effect once.")}
PAGE = {
    "limit": Parameter(
        "How many rows a page has.",
        {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    ),
    "cursor": Parameter("next_cursor of the page before."),
}
