"""JSON shapes of the API, as OpenAPI 3.1 schemas and as the functions that fill them."""

from dataclasses import fields
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from vault.actions.once import encode_cursor
from vault.actions.order_list import Listed, Shown
from vault.actions.orders import OrderView
from vault.domain.carriers import CARRIERS, Reason
from vault.domain.orders import Order, PortType, Status
from vault.domain.records import PHASES, Found, Outcome, Record, mask_number
from vault.web.approvals_schemas import APPROVAL_SCHEMAS
from vault.web.break_glass_schemas import BREAK_GLASS_SCHEMAS
from vault.web.fax_schemas import FAX_SCHEMAS
from vault.web.log_schemas import LOG_SCHEMAS
from vault.web.problems import PROBLEM_SCHEMAS
from vault.web.retention_schemas import RETENTION_SCHEMAS, document_json
from vault.web.shapes import (
    ENUMERATIONS,
    RECOVERED,
    enumeration,
    maybe,
    one_of,
    recovered_json,
    time_text,
)
from vault.web.shapes import ID as _ID
from vault.web.shapes import MAYBE_STRING as _MAYBE_STRING
from vault.web.shapes import MAYBE_TIME as _MAYBE_TIME
from vault.web.shapes import REGION as _REGION
from vault.web.shapes import STRING as _STRING
from vault.web.shapes import TIME as _TIME
from vault.web.shapes import structure as _object
from vault.web.signals_api import SIGNAL_SCHEMAS

_TYPES: dict[Any, dict[str, Any]] = {
    UUID: _ID,
    datetime: _TIME,
    str: _STRING,
    int: {"type": "integer"},
}


def _record_fields(*, needed: bool) -> dict[str, Any]:
    """Return the fields of an access record that each has, or that only some have."""
    found = {}
    for item in fields(Record):
        kinds = get_args(item.type) or (item.type,)
        if (type(None) not in kinds) == needed:
            found[item.name] = _TYPES[kinds[0]]
    return found


SCHEMAS: dict[str, Any] = {
    **{name: enumeration(words) for name, words in ENUMERATIONS.items()},
    **PROBLEM_SCHEMAS,
    **APPROVAL_SCHEMAS,
    **BREAK_GLASS_SCHEMAS,
    **FAX_SCHEMAS,
    **RETENTION_SCHEMAS,
    **SIGNAL_SCHEMAS,
    "NewOrder": _object(
        {
            "region": _REGION,
            "customer": _STRING,
            "numbers": {"type": "array", "items": _STRING, "minItems": 1},
        },
        {
            "customer_reference": _MAYBE_STRING,
            "type": maybe(one_of(PortType)),
            "losing_carrier": _MAYBE_STRING,
            "gaining_carrier": _MAYBE_STRING,
        },
    ),
    "OrderChange": _object(
        {"status": one_of(Status)},
        {"effective_at": _MAYBE_TIME},
    ),
    "OrderCorrection": _object(
        {},
        {
            "numbers": {"type": "array", "items": _STRING, "minItems": 1},
            "customer_reference": _STRING,
            "type": enumeration([*PortType, ""]),
            "losing_carrier": _STRING,
            "gaining_carrier": _STRING,
            "customer": _STRING,
        },
    ),
    "OrderSearch": _object(
        {"region": _REGION},
        {
            "number": _STRING,
            "customer_reference": _STRING,
            "status": one_of(Status),
            "customer": _STRING,
            "due_before": _TIME,
        },
    ),
    "NewTokenLabel": _object({"label": _STRING}),
    "TokenLabel": _object({"id": _ID, "label": _STRING}),
    "OrderNumbers": _object(
        {"order": _ID, "numbers": {"type": "array", "items": _STRING, "minItems": 1}}
    ),
    "CarrierLink": _object({"carrier": one_of(CARRIERS), "reference": _STRING}),
    "HookResult": _object(
        {"result": one_of(["taken", "known", "ignored"])}, {"reason": one_of(Reason)}
    ),
    "OrderSummary": _object(
        {
            "id": _ID,
            "region": _REGION,
            "customer": _STRING,
            "status": one_of(Status),
            "created_at": _TIME,
            "changed_at": _TIME,
            "ended_at": _MAYBE_TIME,
            "document_count": {"type": "integer"},
            "due_at": {**_MAYBE_TIME, "description": "When the first of its documents goes."},
            "details": {
                **enumeration(Shown),
                "description": "Whether the rest was opened for this list, or why not.",
            },
            "customer_reference": _MAYBE_STRING,
            "number_count": {"type": ["integer", "null"]},
            "numbers_masked": {
                "type": ["array", "null"],
                "items": _STRING,
                "description": "The first three of its numbers.",
            },
        },
        RECOVERED,
    ),
    "Order": _object(
        {
            "id": _ID,
            "region": _REGION,
            "customer": _STRING,
            "status": one_of(Status),
            "created_at": _TIME,
            "changed_at": _TIME,
            "ended_at": _MAYBE_TIME,
            "customer_reference": _MAYBE_STRING,
            "type": maybe(one_of(PortType)),
            "losing_carrier": _MAYBE_STRING,
            "gaining_carrier": _MAYBE_STRING,
            "details": one_of(("kept", "gone")),
            "details_gone_at": _MAYBE_TIME,
            "numbers_masked": {"type": ["array", "null"], "items": _STRING},
            "documents": {"type": "array", "items": {"$ref": "#/components/schemas/Document"}},
            "warnings": {"type": "array", "items": {"$ref": "#/components/schemas/Warning"}},
        },
        RECOVERED,
    ),
    "Warning": _object({"code": _STRING, "detail": _STRING}),
    "OrderPage": _object(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/OrderSummary"}},
            "next_cursor": _MAYBE_STRING,
        }
    ),
    "Certificate": _object(
        {
            "certificate": {"type": "object"},
            "note": _STRING,
            "anchor": {
                "type": ["object", "null"],
                "properties": {"record": _STRING, "proof": _STRING},
                "required": ["proof", "record"],
            },
            "handovers": {"type": "array", "items": _STRING},
        }
    ),
    "AccessRecord": _object(
        {
            "index": {"type": ["integer", "null"]},
            **_record_fields(needed=True),
            "phase": one_of(PHASES),
        },
        {
            **_record_fields(needed=False),
            "principal_name": {
                "type": "string",
                "description": "What the principal was called then; no part of the record.",
            },
            "outcome": {
                **one_of(Outcome),
                "description": "Of an intent to read: whether bytes went out; `cut`: not all did.",
            },
            "outcome_bytes": {"type": ["integer", "null"]},
            "waiting": {"type": "boolean"},
        },
    ),
    "AccessRecordPage": _object(
        {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/AccessRecord"}},
            "next_cursor": _MAYBE_STRING,
        }
    ),
    "Health": _object({"status": one_of(("alive",))}),
    "Readiness": _object(
        {
            "status": one_of(("ready",)),
            "regions": {
                "type": "object",
                "description": "The parts of each region that are away.",
                "additionalProperties": {"type": "array", "items": _STRING},
            },
        }
    ),
    **LOG_SCHEMAS,
}


#: So many of an order's numbers stand in a list.
LISTED_MAX = 3


def order_summary(order: Order) -> dict[str, Any]:
    """Return what is nothing personal of an order."""
    return {
        "id": str(order.id),
        "region": order.region,
        "customer": order.customer,
        "status": order.status.value,
        "created_at": time_text(order.created_at),
        "changed_at": time_text(order.changed_at),
        "ended_at": time_text(order.ended_at),
        **recovered_json(order.recovered_at, order.not_known),
    }


def order_page(found: list[Listed], limit: int) -> dict[str, Any]:
    """Return a page of orders; one more than the page takes says that another follows."""
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].order.created_at, page[-1].order.id) if more else None
    return {"data": [_listed_json(item) for item in page], "next_cursor": cursor}


def _listed_json(item: Listed) -> dict[str, Any]:
    details = item.details
    return {
        **order_summary(item.order),
        "document_count": item.documents,
        "due_at": time_text(item.due_at),
        "details": item.shown.value,
        "customer_reference": details and details.customer_reference,
        "number_count": details and len(details.numbers),
        "numbers_masked": details and [mask_number(one) for one in details.numbers[:LISTED_MAX]],
    }


def order_json(view: OrderView) -> dict[str, Any]:
    """Return an order with its numbers masked and its documents."""
    details = view.details
    return {
        **order_summary(view.order),
        "details": "kept" if details else "gone",
        "details_gone_at": time_text(view.order.details_gone_at),
        "customer_reference": details and details.customer_reference,
        "type": details and details.type,
        "losing_carrier": details and details.losing_carrier,
        "gaining_carrier": details and details.gaining_carrier,
        "numbers_masked": details and [mask_number(number) for number in details.numbers],
        "documents": [
            document_json(document, view.standings.get(document.id)) for document in view.documents
        ],
        "warnings": [{"code": said.code, "detail": said.detail} for said in view.warnings],
    }


def found_json(found: Found) -> dict[str, Any]:
    """Return an access record with its place in the log."""
    shown: dict[str, Any] = {"index": found.index, **record_json(found.record)}
    if found.name is not None:
        shown["principal_name"] = found.name
    if found.went_out is not None:
        shown["outcome"] = found.went_out.outcome.value
        shown["outcome_bytes"] = found.went_out.size_bytes
    if found.waiting:
        shown["waiting"] = True
    return shown


def record_json(record: Record) -> dict[str, Any]:
    """Return an access record without the fields it does not have."""
    shown: dict[str, Any] = {}
    for name in Record.__dataclass_fields__:
        value = getattr(record, name)
        if value is not None:
            shown[name] = (
                time_text(value)
                if isinstance(value, datetime)
                else (value if isinstance(value, int) else str(value))
            )
    return shown
