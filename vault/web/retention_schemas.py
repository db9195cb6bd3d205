"""JSON shapes of documents and of all that keeps them: retention, holds, restrictions, policy."""

from typing import Any

from vault.actions.holds import HoldView
from vault.actions.policy import Effect
from vault.actions.retention import Explained, Planned, Standing
from vault.domain.documents import Custody, Document, Ground
from vault.domain.holds import Hold, Restriction
from vault.domain.retention import InstructionView, State, Verdict, duration_text
from vault.web.shapes import (
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
    recovered_json,
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


def document_json(
    document: Document, standing: Standing | None, *, filename: str | None = None
) -> dict[str, Any]:
    """Return a document; beyond use and irrecoverable are two times, always shown apart."""
    shown: dict[str, Any] = {
        "id": str(document.id),
        "order": str(document.order_id),
        "region": document.region,
        "kind": document.kind.value,
        "custody": document.custody.value,
        "media_type": document.media_type,
        "size_bytes": document.size_bytes,
        "received_at": time_text(document.received_at),
        "stored_at": time_text(document.stored_at),
        "beyond_use_since": time_text(document.shredded_at),
        "irrecoverable_since": time_text(document.sealed_at),
        "held": standing is not None and standing.held,
        "holds": [hold_json(hold) for hold in standing.holds] if standing else [],
        "restriction": restriction_json(standing.restriction) if standing else None,
        **recovered_json(document.recovered_at, document.not_known),
    }
    if document.custody is Custody.STORED:
        shown["filename"] = filename
        if standing is not None and standing.verdict is not None:
            shown["retention"] = verdict_json(standing.verdict)
    else:
        shown["shred_reason"] = document.shred_reason
        shown["shred_ground"] = document.shred_ground
        shown["shred_approved_by"] = document.shred_approved_by
        shown["replaced_by"] = str(document.replaced_by) if document.replaced_by else None
    return shown


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return why a document is here and until when."""
    return {
        "state": verdict.state.value,
        "due_at": time_text(verdict.due_at),
        "floor_at": time_text(verdict.floor_at),
        "reason": verdict.sentence,
        "row": verdict.rule.row,
        "citation": verdict.citation,
    }


def restriction_json(restriction: Restriction | None) -> dict[str, Any] | None:
    """Return a restriction, None where there is none."""
    if restriction is None:
        return None
    return {
        "reason": restriction.reason,
        "by": restriction.placed_by,
        "since": time_text(restriction.placed_at),
    }


def hold_json(hold: Hold) -> dict[str, Any]:
    """Return a hold without what it covers."""
    return {
        "id": str(hold.id),
        "region": hold.region,
        "reason": hold.reason,
        "authority": hold.authority,
        "reference": hold.reference,
        "placed_by": hold.placed_by,
        "placed_at": time_text(hold.placed_at),
        "released_by": hold.released_by,
        "release_reason": hold.release_reason,
        "approved_by": hold.approved_by,
        "released_at": time_text(hold.released_at),
        **recovered_json(hold.recovered_at, hold.not_known),
    }


def hold_view_json(view: HoldView) -> dict[str, Any]:
    """Return a hold with what it covers."""
    return {
        **hold_json(view.hold),
        "documents": [str(document) for document in view.targets.documents],
        "orders": [str(order) for order in view.targets.orders],
        "customers": list(view.targets.customers),
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
