"""
The handlers by which others check a region's log: checkpoint, tiles, proofs, keys, cosignatures.

`/v1/log/REGION` is the prefix of a log in the sense of C2SP tlog-tiles; each call wants a token.
"""

import base64

from aiohttp import web

from vault.actions import log_prove as prove
from vault.domain.tiles import parse_path
from vault.errors import InvalidRequestError
from vault.web.requests import json_fields, needed, principal_of, query_flag, query_id, vault_of

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
