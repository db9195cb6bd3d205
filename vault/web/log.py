"""The routes of the access log."""

import base64
from dataclasses import fields
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, get_args
from uuid import UUID

from aiohttp import hdrs, web

from vault.actions import log_prove as prove
from vault.actions.log_prove import export_log
from vault.actions.log_records import list_records
from vault.domain.access import Action, Purpose
from vault.domain.records import Found, Record, Wanted
from vault.domain.tiles import parse_path
from vault.errors import InvalidRequestError
from vault.web.requests import (
    hand_out,
    json_fields,
    needed,
    page_limit,
    principal_of,
    query_flag,
    query_id,
    query_time,
    vault_of,
)
from vault.web.route import (
    BOOLEAN,
    ID,
    PAGE,
    REGION,
    STRING,
    Parameter,
    Route,
    one_of,
    structure,
    time_text,
)
from vault.web.route import ID as _ID
from vault.web.route import STRING as _STRING
from vault.web.route import TIME as _TIME

# ---- The handlers of the access log: look records up, and fetch what proves that none was edited.

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


# ---- The handler of an export of the access log: a stream that is cut, never ended, when it
# fails.

MEDIA_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv"}
_PARAMETERS = {"region", "format", "from", "to"}


async def export_access_records(request: web.Request) -> web.StreamResponse:
    """Hand out a stretch of the log: JSON Lines that prove themselves, or CSV for people."""
    query = request.query
    if unknown := set(query) - _PARAMETERS:
        raise InvalidRequestError(f"there is no parameter {min(unknown)!r}")
    kind = query.get("format", "jsonl")
    if kind not in MEDIA_TYPES:
        raise InvalidRequestError(f"format must be one of {', '.join(MEDIA_TYPES)}")
    region = query.get("region", "")
    async with export_log(
        vault_of(request),
        principal_of(request),
        region,
        since=query_time(request, "from"),
        until=query_time(request, "to"),
        as_csv=kind == "csv",
    ) as pieces:
        return await hand_out(
            request,
            pieces,
            size_bytes=None,
            media_type=MEDIA_TYPES[kind],
            headers={hdrs.CONTENT_DISPOSITION: f'attachment; filename="log-{region}.{kind}"'},
        )


# ---- The handlers by which others check a region's log: checkpoint, tiles, proofs, keys,
# cosignatures.
#
# `/v1/log/REGION` is the prefix of a log in the sense of C2SP tlog-tiles; each call wants a token.

TEXT, BYTES = "text/plain", "application/octet-stream"
DIGITS_MAX = 18
LINE_LENGTH_MAX = 1024


async def show_checkpoint(request: web.Request) -> web.Response:
    """Show the published checkpoint of a region's log, with the cosignatures it has."""
    return await _checkpoint(request, request.query.get("region", ""))


async def show_log_checkpoint(request: web.Request) -> web.Response:
    """Show the same at the place where a client of such logs looks for it."""
    return await _checkpoint(request, request.match_info["region"])


async def _checkpoint(request: web.Request, region: str) -> web.Response:
    note = await prove.checkpoint(
        vault_of(request), principal_of(request), region, witnessed=query_flag(request, "witnessed")
    )
    return web.Response(text=note, content_type=TEXT)


async def show_log_keys(request: web.Request) -> web.Response:
    """Show the public key that signs, and how earlier keys named it."""
    keys = await prove.signing_keys(
        vault_of(request), principal_of(request), request.match_info["region"]
    )
    return web.json_response(keys)


async def show_tile(request: web.Request) -> web.Response:
    """Show a tile of hashes, or a bundle of entries."""
    try:
        wanted = parse_path(f"tile/{request.match_info['path']}")
    except ValueError:
        raise web.HTTPNotFound(reason="There is no such tile.") from None
    data = await prove.tile(
        vault_of(request), principal_of(request), request.match_info["region"], wanted
    )
    return web.Response(body=data, content_type=BYTES)


async def prove_inclusion(request: web.Request) -> web.Response:
    """Prove that a record is in the log."""
    proof = await prove.inclusion(
        vault_of(request),
        principal_of(request),
        request.match_info["region"],
        record=query_id(request, "record"),
        index=_number(request, "index"),
        witnessed=query_flag(request, "witnessed"),
    )
    return web.Response(text=proof, content_type=TEXT)


async def prove_consistency(request: web.Request) -> web.Response:
    """Prove that the log of an earlier size is a prefix of a later one."""
    old = _number(request, "from")
    if old is None:
        raise InvalidRequestError("say from which size: ?from=SIZE")
    size, proof = await prove.consistency(
        vault_of(request),
        principal_of(request),
        request.match_info["region"],
        old,
        _number(request, "to"),
    )
    hashes = [base64.b64encode(item).decode() for item in proof]
    return web.json_response({"from": old, "to": size, "proof": hashes})


async def add_cosignature(request: web.Request) -> web.Response:
    """Take what a witness says of a checkpoint."""
    fields = await json_fields(request, size=int, cosignature=str)
    size, region = needed(fields, "size"), request.match_info["region"]
    if isinstance(size, bool) or not 0 < size < 10**DIGITS_MAX:
        raise InvalidRequestError("size must be that of a checkpoint")
    line = needed(fields, "cosignature")
    if len(line) > LINE_LENGTH_MAX or line.count("\n") != 1 or not line.endswith("\n"):
        raise InvalidRequestError("cosignature must be one line of a signed note")
    name = await prove.cosign(vault_of(request), principal_of(request), region, size, line)
    return web.json_response({"size": size, "witness": name}, status=201)


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > DIGITS_MAX:
        raise InvalidRequestError(f"{name} must be a whole number")
    return int(text)


# ---- JSON shapes of what proves the log. --------------------------------------------------------

_STRINGS = {"type": "array", "items": STRING}
_SIZE = {"type": "integer", "minimum": 1}

LOG_SCHEMAS: dict[str, Any] = {
    "LogKeys": structure({"key": STRING, "handovers": _STRINGS}),
    "Cosignature": structure({"size": _SIZE, "cosignature": STRING}),
    "Cosigned": structure({"size": _SIZE, "witness": STRING}),
    "ConsistencyProof": structure({"from": _SIZE, "to": _SIZE, "proof": _STRINGS}),
}


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


# ---- Log. ---------------------------------------------------------------------------------------

_WITNESSED = {"witnessed": Parameter("The newest that a witness has cosigned.", BOOLEAN)}

ROUTES = (
    Route(
        "GET",
        "/v1/access-records",
        list_access_records,
        "List access records, newest first",
        200,
        "AccessRecordPage",
        query={**RECORD_FILTERS, **PAGE},
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/access-records/export",
        export_access_records,
        "Export a stretch of the log, with what proves it",
        200,
        "application/jsonl",
        query={
            "region": Parameter("Whose log.", REGION, True),
            "format": Parameter(
                "jsonl (which proves itself), or csv for people.",
                one_of(MEDIA_TYPES),
            ),
            "from": Parameter("From the first record of this time or date on."),
            "to": Parameter("Up to the last record before this time or date."),
        },
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/checkpoint",
        show_checkpoint,
        "Show the published checkpoint of a region's log",
        200,
        TEXT,
        query={"region": Parameter("Whose log.", REGION, True), **_WITNESSED},
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/{region}/checkpoint",
        show_log_checkpoint,
        "Show the same under the prefix of the log (C2SP tlog-tiles)",
        200,
        TEXT,
        query=_WITNESSED,
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/{region}/keys",
        show_log_keys,
        "Show the key that signs the log, and how earlier keys named it",
        200,
        "LogKeys",
    ),
    Route(
        "GET",
        "/v1/log/{region}/tile/{path:.+}",
        show_tile,
        "Show a tile of hashes, or a bundle of entries (C2SP tlog-tiles)",
        200,
        BYTES,
    ),
    Route(
        "GET",
        "/v1/log/{region}/inclusion",
        prove_inclusion,
        "Prove that a record is in the log (C2SP tlog-proof)",
        200,
        TEXT,
        query={
            "record": Parameter("The record's id, as in a receipt.", ID),
            "index": Parameter("Or its place in the log.", {"type": "integer", "minimum": 0}),
            **_WITNESSED,
        },
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/log/{region}/consistency",
        prove_consistency,
        "Prove that the log of an earlier size is a prefix of a later one",
        200,
        "ConsistencyProof",
        query={
            "from": Parameter("The earlier size.", _SIZE, True),
            "to": Parameter("The later size (the one that is published).", _SIZE),
        },
        refusals=(422,),
    ),
    Route(
        "POST",
        "/v1/log/{region}/cosignatures",
        add_cosignature,
        "Add what a witness says of a checkpoint (C2SP tlog-cosignature)",
        201,
        "Cosigned",
        body="Cosignature",
        refusals=(422,),
    ),
)
