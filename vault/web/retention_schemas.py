"""JSON shapes of documents and of all that keeps them: retention, holds, restrictions, policy."""

from typing import Any

from vault.actions.policy import Effect
from vault.actions.retention import Explained, Planned
from vault.domain.documents import Custody, Ground
from vault.domain.retention import InstructionView, State, duration_text
from vault.web.documents import restriction_json, verdict_json
from vault.web.holds import hold_json
from vault.web.route import (
    BOOLEAN,
    ID,
    KIND,
    MAYBE_NUMBER,
    MAYBE_STRING,
    MAYBE_TIME,
    RECOVERED,
    REGION,
    STRING,
    TIME,
    maybe,
    one_of,
    structure,
    time_text,
)

_IDS = {"type": "array", "items": ID}
_STRINGS = {"type": "array", "items": STRING}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _page_of(name: str) -> dict[str, Any]:
    return structure({"data": _list_of(name), "next_cursor": MAYBE_STRING})


_RETENTION = structure(
    {
        "state": one_of(State),
        "due_at": MAYBE_TIME,
        "floor_at": MAYBE_TIME,
        "reason": STRING,
        "row": STRING,
        "citation": STRING,
    }
)
_RESTRICTED = structure({"reason": MAYBE_STRING, "by": MAYBE_STRING, "since": TIME})
_RESTRICTION = {"oneOf": [{"type": "null"}, _RESTRICTED]}
_HOLD = {
    "id": ID,
    "region": REGION,
    "reason": STRING,
    "authority": STRING,
    "reference": MAYBE_STRING,
    "placed_by": STRING,
    "placed_at": TIME,
    "released_by": MAYBE_STRING,
    "release_reason": MAYBE_STRING,
    "approved_by": MAYBE_STRING,
    "released_at": MAYBE_TIME,
}
_TARGETS = {"documents": _IDS, "orders": _IDS, "customers": _STRINGS}

RETENTION_SCHEMAS: dict[str, Any] = {
    "Document": structure(
        {
            "id": ID,
            "order": ID,
            "region": REGION,
            "kind": KIND,
            "custody": one_of([Custody.STORED, Custody.SHREDDED, Custody.SEALED]),
            "media_type": MAYBE_STRING,
            "size_bytes": MAYBE_NUMBER,
            "received_at": TIME,
            "stored_at": MAYBE_TIME,
            "beyond_use_since": MAYBE_TIME,
            "irrecoverable_since": MAYBE_TIME,
            "held": BOOLEAN,
            "holds": _list_of("Hold"),
            "restriction": _RESTRICTION,
        },
        {
            "filename": MAYBE_STRING,
            #: Of an upload's answer: whether its Content-Digest was checked. None is kept.
            "digest": one_of(("checked", "none")),
            #: And whether an earlier upload under the same Idempotency-Key had brought it.
            "earlier": BOOLEAN,
            "shred_reason": MAYBE_STRING,
            "shred_ground": MAYBE_STRING,
            "shred_approved_by": MAYBE_STRING,
            "replaced_by": {"type": ["string", "null"], "format": "uuid"},
            "retention": _RETENTION,
            **RECOVERED,
        },
    ),
    "Retention": structure(
        {
            "document": ID,
            "kind": KIND,
            "region": REGION,
            "custody": one_of([Custody.STORED, Custody.SHREDDED, Custody.SEALED]),
            "sentence": STRING,
            "held": BOOLEAN,
            "holds": _list_of("Hold"),
            "restriction": _RESTRICTION,
        },
        {"retention": _RETENTION},
    ),
    "Planned": structure(
        {"document": ID, "order": ID, "region": REGION, "kind": KIND, "retention": _RETENTION}
    ),
    "PlannedPage": structure(
        {"data": _list_of("Planned"), "next_cursor": MAYBE_STRING, "unjudged": {"type": "integer"}}
    ),
    "ShredRequest": structure(
        {"reason": STRING}, {"ground": one_of(Ground), "approval": ID, "replaced_by": ID}
    ),
    "KindCorrection": structure({"kind": KIND}, {"approval": ID}),
    "Reason": structure({"reason": STRING}),
    "NewHold": structure(
        {"region": REGION, "reason": STRING, "authority": STRING},
        {"reference": MAYBE_STRING, **_TARGETS},
    ),
    "Hold": structure(_HOLD, {**_TARGETS, **RECOVERED}),
    "HoldPage": _page_of("Hold"),
    "HoldRelease": structure({"reason": STRING, "approval": ID}),
    "NewInstruction": structure(
        {"region": REGION, "customer": STRING, "keep": STRING},
        {"kind": maybe(KIND), "reference": MAYBE_STRING},
    ),
    "Instruction": structure(
        {
            "id": ID,
            "region": REGION,
            "customer": STRING,
            "kind": maybe(KIND),
            "keep": STRING,
            "reference": MAYBE_STRING,
            "given_by": STRING,
            "given_at": TIME,
            "resolved_at": MAYBE_TIME,
            "withdrawn_at": MAYBE_TIME,
            "conflicts": _STRINGS,
        }
    ),
    "InstructionPage": _page_of("Instruction"),
    "PolicyText": structure({"text": STRING}),
    "PolicyChange": structure({"text": STRING}, {"approval": ID}),
    "Policy": structure(
        {
            "version": {"type": "integer"},
            "text": MAYBE_STRING,
            "rules": {"type": "array", "items": {"type": "object"}},
        }
    ),
    "PolicyEffect": structure(
        {
            "subject": STRING,
            "shortens": {"type": "boolean"},
            "changes": _STRINGS,
            "at_once": {"type": "integer"},
            "by_kind": {"type": "object"},
            "documents": _IDS,
        },
        {"version": {"type": "integer"}},
    ),
}


def explained_json(found: Explained) -> dict[str, Any]:
    """Return why a document is here, and until when."""
    document, standing = found.document, found.standing
    shown: dict[str, Any] = {
        "document": str(document.id),
        "kind": document.kind.value,
        "region": document.region,
        "custody": document.custody.value,
        "sentence": found.sentence,
        "held": standing.held,
        "holds": [hold_json(hold) for hold in standing.holds],
        "restriction": restriction_json(standing.restriction),
    }
    if standing.verdict is not None:
        shown["retention"] = verdict_json(standing.verdict)
    return shown


def planned_json(planned: Planned) -> dict[str, Any]:
    """Return a document that will go."""
    return {
        "document": str(planned.document.id),
        "order": str(planned.document.order_id),
        "region": planned.document.region,
        "kind": planned.document.kind.value,
        "retention": verdict_json(planned.verdict),
    }


def instruction_json(view: InstructionView) -> dict[str, Any]:
    """Return an instruction with what it contradicts."""
    given = view.instruction
    return {
        "id": str(given.id),
        "region": given.region,
        "customer": given.customer,
        "kind": given.kind,
        "keep": duration_text(given.keep),
        "reference": given.reference,
        "given_by": given.given_by,
        "given_at": time_text(given.given_at),
        "resolved_at": time_text(given.nearest_at),
        "withdrawn_at": time_text(given.withdrawn_at),
        "conflicts": [
            f"{rule.kind} after {rule.event}: row {rule.row} allows "
            f"{duration_text(rule.keep_min)} to {duration_text(rule.keep_max)}"
            for rule in view.conflicts
        ],
    }


def effect_json(effect: Effect) -> dict[str, Any]:
    """Return what a policy would change."""
    return {
        "subject": effect.subject,
        "shortens": effect.shortens,
        "changes": [str(change) for change in effect.changes],
        "at_once": effect.at_once,
        "by_kind": effect.by_kind,
        "documents": [str(document) for document in effect.documents],
    }
