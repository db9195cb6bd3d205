"""What is said of an operation: the server is built from it, and so is the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

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
    #: The schema of a JSON body, or `file` for a document.
    body: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Statuses beside those that any authenticated route may answer.
    refusals: tuple[int, ...] = ()
    public: bool = False
    #: Whether a public route takes a token all the same, from who wants to be known.
    knows: bool = False


IDEMPOTENCY = {"Idempotency-Key": "The same key has its effect once."}
PAGE = {"limit": "1 to 200, default 50.", "cursor": "next_cursor of the page before."}
