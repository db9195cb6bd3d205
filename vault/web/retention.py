"""The routes of retention: why a document is here, what keeps it, and the rules themselves."""

from aiohttp import web

from vault.actions import policy, retention
from vault.actions import policy as instruct
from vault.actions.once import encode_cursor
from vault.domain.retention import duration_text
from vault.errors import ConfigurationError, InvalidRequestError
from vault.web import documents, holds
from vault.web.holds import _id
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
from vault.web.retention_schemas import effect_json, explained_json, instruction_json, planned_json
from vault.web.route import PAGE, Parameter, Route

# ---- The handlers of retention, holds, restrictions, instructions and policy. -------------------


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
    """Say what a policy would change, and which documents, and how many faxes, would go at once."""
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


# ---- Retention. ---------------------------------------------------------------------------------

ROUTES = (
    Route(
        "POST",
        "/v1/documents/{id}/actions/shred",
        documents.shred_document,
        "Put a document beyond use",
        200,
        "Document",
        body="ShredRequest",
        refusals=(409, 422, 423),
    ),
    Route(
        "POST",
        "/v1/documents/{id}/actions/correct",
        documents.correct_document,
        "Say that a document is of another kind",
        200,
        "Document",
        body="KindCorrection",
        refusals=(409, 422, 423),
    ),
    Route(
        "POST",
        "/v1/documents/{id}/actions/restrict",
        documents.restrict_document,
        "Let nobody read a document for the time being (GDPR art. 18)",
        200,
        "Document",
        body="Reason",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/documents/{id}/actions/unrestrict",
        documents.unrestrict_document,
        "Let a document be read again",
        200,
        "Document",
        body="Reason",
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/documents/{id}/retention",
        show_retention,
        "Say why a document is here, until when, under which clause, and which holds keep it",
        200,
        "Retention",
    ),
    Route(
        "GET",
        "/v1/retention/plan",
        show_plan,
        "List what will go until a date, soonest first",
        200,
        "PlannedPage",
        query={"until": Parameter("A time or a date.", required=True), **PAGE},
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/holds",
        holds.place_hold,
        "Place a hold on documents, orders and customers, present and future",
        201,
        "Hold",
        body="NewHold",
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/holds",
        holds.list_holds,
        "List holds, newest first",
        200,
        "HoldPage",
        query=PAGE,
        refusals=(422,),
    ),
    Route("GET", "/v1/holds/{id}", holds.show_hold, "Show a hold", 200, "Hold"),
    Route(
        "POST",
        "/v1/holds/{id}/actions/release",
        holds.release_hold,
        "Release a hold that somebody else has agreed to release",
        200,
        "Hold",
        body="HoldRelease",
        refusals=(409, 422),
    ),
    Route(
        "POST",
        "/v1/retention/instructions",
        give_instruction,
        "Keep a customer's instruction, in place of the one before",
        201,
        "Instruction",
        body="NewInstruction",
        refusals=(409, 422),
    ),
    Route(
        "GET",
        "/v1/retention/instructions",
        list_instructions,
        "List customers' instructions with what they contradict, newest first",
        200,
        "InstructionPage",
        query={"customer": Parameter("Only this customer's."), **PAGE},
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/retention/instructions/{id}/actions/resolve",
        resolve_instruction,
        "Follow an instruction as nearly as the policy allows",
        200,
        "Instruction",
        refusals=(409,),
    ),
    Route(
        "POST",
        "/v1/retention/instructions/{id}/actions/withdraw",
        withdraw_instruction,
        "End an instruction",
        200,
        "Instruction",
        refusals=(409,),
    ),
    Route(
        "GET",
        "/v1/retention/policy",
        show_policy,
        "Show the retention policy in force",
        200,
        "Policy",
    ),
    Route(
        "POST",
        "/v1/retention/policy/effect",
        show_policy_effect,
        "Say what a policy would change, and which documents would go at once",
        200,
        "PolicyEffect",
        body="PolicyText",
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/retention/policy",
        apply_policy,
        "Put a policy in force; one that shortens needs an approval",
        200,
        "PolicyEffect",
        body="PolicyChange",
        refusals=(409, 422),
    ),
)
