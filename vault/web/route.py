"""What is said of an operation: the server is built from it, and so is the OpenAPI document."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from vault.domain import access, approvals, carriers, faxes, orders, retention, signals
from vault.domain import credentials as break_glass
from vault.domain.documents import Ground, Kind
from vault.domain.people import ACTORS, called
from vault.domain.records import PHASES
from vault.domain.regions import REGIONS

# ---- What the JSON of every area is made of. ----------------------------------------------------

#: The enumerations that have a name of their own in the OpenAPI document.
ENUMERATIONS: Mapping[str, Iterable[str]] = {
    "Region": REGIONS,
    "Kind": Kind,
    "Purpose": access.Purpose,
    "Role": access.Role,
    "Action": access.Action,
    "OrderStatus": orders.Status,
    "PortType": orders.PortType,
    "RetentionState": retention.State,
    "ShredGround": Ground,
    "FaxDirection": faxes.Direction,
    "FaxChannel": faxes.Channel,
    "FaxState": faxes.State,
    "ApprovalAct": approvals.Act,
    "ApprovalState": approvals.State,
    "CredentialState": break_glass.State,
    "Carrier": carriers.CARRIERS,
    "IgnoredReason": carriers.Reason,
    "SignalType": signals.SignalType,
    "Phase": PHASES,
}

BOOLEAN = {"type": "boolean"}
STRING = {"type": "string"}
ID = {"type": "string", "format": "uuid"}
TIME = {"type": "string", "format": "date-time"}
MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}
MAYBE_STRING = {"type": ["string", "null"]}
MAYBE_NUMBER = {"type": ["integer", "null"]}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What goes into the query or the headers: what it says, and its schema."""

    text: str
    schema: Mapping[str, Any] = field(default_factory=lambda: STRING)
    required: bool = False


#: Of what a restore brought back without its row: when, and the fields that are not known since.
RECOVERED: dict[str, Any] = {
    "recovered_at": {"type": "string", "format": "date-time"},
    "not_known": {"type": "array", "items": STRING},
}


def recovered_json(at: datetime | None, not_known: Iterable[str] | None) -> dict[str, Any]:
    """Return that a restore brought a thing back, and what of it is not known; else nothing."""
    return {"recovered_at": time_text(at), "not_known": list(not_known or ())} if at else {}


def structure(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object; a principal has what it was called beside it."""
    properties = dict[str, Any]()
    for name, schema in {**required, **(optional or {})}.items():
        properties[name] = schema
        if name in ACTORS:
            properties[called(name)] = MAYBE_STRING
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
    }


def one_of(words: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a word of an enumeration, which may stand under a name."""
    name = next((name for name, known in ENUMERATIONS.items() if known is words), None)
    return enumeration(words) if name is None else reference(name)


def enumeration(words: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a word of an enumeration, as it stands under its name."""
    return {"type": "string", "enum": [str(word) for word in words]}


def reference(name: str) -> dict[str, Any]:
    """Return the schema that stands under a name."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


REGION, KIND = reference("Region"), reference("Kind")


def time_text(at: datetime | None) -> str | None:
    """Return RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z") if at else None


# ---- Route. -------------------------------------------------------------------------------------

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
