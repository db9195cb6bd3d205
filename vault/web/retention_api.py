"""The handlers of retention, holds, restrictions, instructions and policy."""

from typing import Any
from uuid import UUID

from aiohttp import web

from vault.actions import holds as hold
from vault.actions import holds as restrict
from vault.actions import policy, retention
from vault.actions import policy as instruct
from vault.actions.correct import correct_kind
from vault.actions.once import encode_cursor
from vault.actions.retention import standing_of
from vault.actions.shred import shred
from vault.domain.documents import Document, Ground, Kind, parse_kind
from vault.domain.holds import Targets
from vault.domain.retention import duration_text
from vault.errors import ConfigurationError, InvalidRequestError
from vault.web.requests import (
    answer,
    identity_of,
    json_fields,
    needed,
    page_limit,
    principal_of,
    query_time,
    time_cursor,
    vault_of,
)
from vault.web.retention_schemas import (
    document_json,
    effect_json,
    explained_json,
    hold_json,
    hold_view_json,
    instruction_json,
    planned_json,
)


async def shred_document(request: web.Request) -> web.Response:
    """Put a document beyond use."""
    fields = await json_fields(request, reason=str, ground=str, approval=str, replaced_by=str)
    try:
        ground = Ground(fields.get("ground") or Ground.NOT_NEEDED)
    except ValueError:
        raise InvalidRequestError(f"ground must be one of {', '.join(Ground)}") from None
    document = await shred(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        needed(fields, "reason"),
        ground,
        approval=_maybe_id(fields, "approval"),
        replaced_by=_maybe_id(fields, "replaced_by"),
    )
    return await _document(request, document)


async def correct_document(request: web.Request) -> web.Response:
    """Say that a document is of another kind."""
    fields = await json_fields(request, kind=str, approval=str)
    kind = parse_kind(needed(fields, "kind"))
    if kind is None:
        raise InvalidRequestError(f"kind must be one of {', '.join(Kind)}")
    document = await correct_kind(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        kind,
        _maybe_id(fields, "approval"),
    )
    return await _document(request, document)


async def restrict_document(request: web.Request) -> web.Response:
    """Let nobody read a document for the time being."""
    fields = await json_fields(request, reason=str)
    reason = needed(fields, "reason")
    document = await restrict.restrict(
        vault_of(request), principal_of(request), identity_of(request), reason
    )
    return await _document(request, document)


async def unrestrict_document(request: web.Request) -> web.Response:
    """Let a document be read again."""
    fields = await json_fields(request, reason=str)
    reason = needed(fields, "reason")
    document = await restrict.unrestrict(
        vault_of(request), principal_of(request), identity_of(request), reason
    )
    return await _document(request, document)


async def _document(request: web.Request, document: Document) -> web.Response:
    standing = await standing_of(vault_of(request), principal_of(request), document)
    return await answer(request, document_json(document, standing))


async def show_retention(request: web.Request) -> web.Response:
    """Say why a document is here, until when, under which clause, and which holds keep it."""
    found = await retention.explain_retention(
        vault_of(request), principal_of(request), identity_of(request)
    )
    return await answer(request, explained_json(found))


async def show_plan(request: web.Request) -> web.Response:
    """List what will go until a date."""
    until = query_time(request, "until")
    if until is None:
        raise InvalidRequestError("say until when: ?until=2026-12-31")
    limit = page_limit(request)
    plan = await retention.plan_retention(
        vault_of(request), principal_of(request), until, time_cursor(request), limit + 1
    )
    page, more = plan.items[:limit], len(plan.items) > limit
    last = page[-1] if more else None
    at = last.verdict.due_at if last else None
    return await answer(
        request,
        {
            "data": [planned_json(item) for item in page],
            "next_cursor": encode_cursor(at, last.document.id) if last and at else None,
            "unjudged": plan.unjudged,
        },
    )


async def place_hold(request: web.Request) -> web.Response:
    """Place a hold on documents, orders and customers."""
    fields = await json_fields(
        request,
        region=str,
        reason=str,
        authority=str,
        reference=str,
        documents=list,
        orders=list,
        customers=list,
    )
    customers = fields.get("customers") or []
    if not all(isinstance(customer, str) for customer in customers):
        raise InvalidRequestError("customers must be a list of ids")
    view = await hold.place_hold(
        vault_of(request),
        principal_of(request),
        region=needed(fields, "region"),
        reason=needed(fields, "reason"),
        authority=needed(fields, "authority"),
        reference=fields.get("reference"),
        targets=Targets(_ids(fields, "documents"), _ids(fields, "orders"), tuple(customers)),
    )
    return await answer(request, hold_view_json(view), status=201)


def _ids(fields: dict[str, Any], name: str) -> tuple[UUID, ...]:
    return tuple(_id(name, text) for text in fields.get(name) or [])


def _maybe_id(fields: dict[str, Any], name: str) -> UUID | None:
    return _id(name, fields[name]) if fields.get(name) is not None else None


def _id(name: str, text: object) -> UUID:
    try:
        return UUID(text) if isinstance(text, str) else UUID("")
    except ValueError:
        raise InvalidRequestError(f"{name} must hold ids") from None


async def list_holds(request: web.Request) -> web.Response:
    """List holds, newest first."""
    limit = page_limit(request)
    found = await hold.list_holds(
        vault_of(request), principal_of(request), time_cursor(request), limit + 1
    )
    page, more = found[:limit], len(found) > limit
    cursor = encode_cursor(page[-1].placed_at, page[-1].id) if more else None
    return await answer(
        request, {"data": [hold_json(item) for item in page], "next_cursor": cursor}
    )


async def show_hold(request: web.Request) -> web.Response:
    """Show a hold and what it covers."""
    view = await hold.show_hold(vault_of(request), principal_of(request), identity_of(request))
    return await answer(request, hold_view_json(view))


async def release_hold(request: web.Request) -> web.Response:
    """Release a hold that somebody else has agreed to release."""
    fields = await json_fields(request, reason=str, approval=str)
    approval = fields.get("approval")
    view = await hold.release_hold(
        vault_of(request),
        principal_of(request),
        identity_of(request),
        needed(fields, "reason"),
        _id("approval", approval) if approval else None,
    )
    return await answer(request, hold_view_json(view))


async def give_instruction(request: web.Request) -> web.Response:
    """Keep a customer's instruction."""
    fields = await json_fields(request, region=str, customer=str, kind=str, keep=str, reference=str)
    view = await instruct.give_instruction(
        vault_of(request),
        principal_of(request),
        region=needed(fields, "region"),
        customer=needed(fields, "customer"),
        kind=fields.get("kind"),
        keep=needed(fields, "keep"),
        reference=fields.get("reference"),
    )
    return await answer(request, instruction_json(view), status=201)


async def list_instructions(request: web.Request) -> web.Response:
    """List customers' instructions, newest first."""
    limit = page_limit(request)
    found = await instruct.list_instructions(
        vault_of(request),
        principal_of(request),
        request.query.get("customer"),
        time_cursor(request),
        limit + 1,
    )
    page, more = found[:limit], len(found) > limit
    last = page[-1].instruction if more else None
    cursor = encode_cursor(last.given_at, last.id) if last else None
    data = [instruction_json(item) for item in page]
    return await answer(request, {"data": data, "next_cursor": cursor})


async def resolve_instruction(request: web.Request) -> web.Response:
    """Resolve an instruction's conflicts: follow it as nearly as the policy allows."""
    view = await instruct.resolve_instruction(
        vault_of(request), principal_of(request), identity_of(request)
    )
    return await answer(request, instruction_json(view))


async def withdraw_instruction(request: web.Request) -> web.Response:
    """End an instruction."""
    view = await instruct.withdraw_instruction(
        vault_of(request), principal_of(request), identity_of(request)
    )
    return await answer(request, instruction_json(view))


async def show_policy(request: web.Request) -> web.Response:
    """Show the retention policy in force."""
    current, text = await retention.show_policy(vault_of(request), principal_of(request))
    rules = [
        {
            "row": rule.row,
            "kind": rule.kind,
            "region": rule.region,
            "event": rule.event.value,
            "keep_min": duration_text(rule.keep_min),
            "keep_max": duration_text(rule.keep_max),
            "citation": rule.citation,
        }
        for rule in current.policy.values()
    ]
    return web.json_response({"version": current.version, "text": text, "rules": rules})


async def show_policy_effect(request: web.Request) -> web.Response:
    """Say what a policy would change, and which documents would go at once."""
    fields = await json_fields(request, text=str)
    text = needed(fields, "text")
    try:
        effect = await policy.policy_effect(vault_of(request), principal_of(request), text)
    except ConfigurationError as error:
        raise InvalidRequestError(str(error)) from None
    return await answer(request, effect_json(effect))


async def apply_policy(request: web.Request) -> web.Response:
    """Put a policy in force."""
    fields = await json_fields(request, text=str, approval=str)
    approval = fields.get("approval")
    try:
        version, effect = await policy.apply_policy(
            vault_of(request),
            principal_of(request),
            needed(fields, "text"),
            _id("approval", approval) if approval else None,
        )
    except ConfigurationError as error:
        raise InvalidRequestError(str(error)) from None
    return web.json_response({**effect_json(effect), "version": version})
