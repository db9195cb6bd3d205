"""JSON shapes of the API, as OpenAPI 3.1 schemas and as the functions that fill them."""

from typing import Any

from vault.actions.order_list import Shown
from vault.domain.carriers import CARRIERS, Reason
from vault.domain.orders import PortType, Status
from vault.domain.records import PHASES, Outcome
from vault.web.approvals import APPROVAL_SCHEMAS
from vault.web.credentials import BREAK_GLASS_SCHEMAS
from vault.web.faxes import FAX_SCHEMAS
from vault.web.log import LOG_SCHEMAS, _record_fields
from vault.web.problems import PROBLEM_SCHEMAS
from vault.web.retention_schemas import RETENTION_SCHEMAS
from vault.web.route import ENUMERATIONS, RECOVERED, enumeration, maybe, one_of
from vault.web.route import ID as _ID
from vault.web.route import MAYBE_STRING as _MAYBE_STRING
from vault.web.route import MAYBE_TIME as _MAYBE_TIME
from vault.web.route import REGION as _REGION
from vault.web.route import STRING as _STRING
from vault.web.route import TIME as _TIME
from vault.web.route import structure as _object
from vault.web.signals import SIGNAL_SCHEMAS

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
