"""The handler of an export of the access log: a stream that is cut, never ended, when it fails."""

from aiohttp import hdrs, web

from vault.actions.log_prove import export_log
from vault.errors import InvalidRequestError
from vault.web.requests import hand_out, principal_of, query_time, vault_of

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
