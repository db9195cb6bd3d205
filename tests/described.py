"""Whether what a server answers is what its description says that it may answer."""

import re
from functools import cache

import aiohttp

from vault.web.routes import openapi


@cache
def _operations() -> list[tuple[re.Pattern[str], dict[str, frozenset[int]]]]:
    """Return the statuses of each operation, by path and method; paths without a part first."""
    found = []
    for path, methods in sorted(openapi()["paths"].items(), key=lambda item: "{" in item[0]):
        pattern = re.sub(r"\\?{path\\?}", ".+", re.escape(path))
        pattern = re.sub(r"\\?{\w+\\?}", "[^/]+", pattern)
        statuses = {
            method: frozenset(map(int, operation["responses"]))
            for method, operation in methods.items()
        }
        found.append((re.compile(pattern), statuses))
    return found


def is_described(method: str, path: str, status: int) -> bool:
    """Whether an operation says that it may answer this; what is no operation may anything."""
    for pattern, statuses in _operations():
        if pattern.fullmatch(path):
            known = statuses.get(method.lower())
            return known is None or status in known
    return True


def watched(wrong: set[tuple[str, str, int]]) -> aiohttp.TraceConfig:
    """Return a trace that keeps the answers that are not described."""
    trace = aiohttp.TraceConfig()

    async def look(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        status = ended.response.status
        if not is_described(ended.method, ended.url.path, status):
            wrong.add((ended.method, ended.url.path, status))

    trace.on_request_end.append(look)
    return trace
