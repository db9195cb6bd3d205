"""The handlers of the access log: look records up, and fetch what proves that none was edited."""

from difflib import get_close_matches
from enum import StrEnum

from aiohttp import web

from vault.actions.log_records import list_records
from vault.domain.access import Action, Purpose
from vault.domain.records import Wanted
from vault.errors import InvalidRequestError
from vault.web.requests import page_limit, principal_of, query_flag, query_id, query_time, vault_of
from vault.web.schemas import found_json
from vault.web.shapes import BOOLEAN, ID, REGION, Parameter, one_of

#: So much of an unknown word is said again.
WORD_MAX = 40
#: What records are looked up by. A filter that is mistyped must not widen what is found.
RECORD_FILTERS = {
    "region": Parameter("Whose log; needed when you may see several.", REGION),
    "document": Parameter("Only of this document.", ID),
    "order": Parameter("Only of this order.", ID),
    "principal": Parameter(
        "Only what this one did: an id of the log, a token's label, or a person's name."
    ),
    "purpose": Parameter(
        "Only reads for this purpose; `outcome` says of each whether bytes went out.",
        one_of(Purpose),
    ),
    "action": Parameter("Only this action.", one_of(Action)),
    "refused": Parameter("Only what was refused.", BOOLEAN),
    "transfers": Parameter(
        "Only what left its region, or was to; with `region_to` and `basis`.", BOOLEAN
    ),
    "from": Parameter("Only from this time or date on, which is not in the future."),
    "to": Parameter("Only before this time or date."),
}


async def list_access_records(request: web.Request) -> web.Response:
    """List access records, newest first; a filter that nothing can ever fit is refused."""
    limit = page_limit(request)
    query = request.query
    if unknown := set(query) - set(RECORD_FILTERS) - {"cursor", "limit"}:
        raise InvalidRequestError(
            f"there is no filter {min(unknown)!r}; known: {', '.join(RECORD_FILTERS)}"
        )
    found, cursor = await list_records(
        vault_of(request),
        principal_of(request),
        region=query.get("region"),
        wanted=Wanted(
            document=query_id(request, "document"),
            order=query_id(request, "order"),
            principal=query.get("principal"),
            purpose=_word(request, "purpose", Purpose),
            action=_word(request, "action", Action),
            refused=query_flag(request, "refused"),
            transfers=query_flag(request, "transfers"),
            since=query_time(request, "from"),
            until=query_time(request, "to"),
        ),
        cursor=query.get("cursor"),
        limit=limit,
    )
    body = {"data": [found_json(item) for item in found], "next_cursor": cursor}
    return web.json_response(body)


def _word(request: web.Request, name: str, words: type[StrEnum]) -> str | None:
    text = request.query.get(name)
    if text and text not in list(words):
        near = get_close_matches(text, list(words), n=3, cutoff=0.4)
        meant = f"near it are {', '.join(near)}; " if near else ""
        raise InvalidRequestError(
            f"there is no {name} {text[:WORD_MAX]!r}; {meant}all of them stand in /openapi.json, "
            f"for the parameter {name}"
        )
    return text or None
