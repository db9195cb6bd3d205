"""
Answers to what is no HTTP, which the library gives by itself, before there is an application.

They are problems like all others, say nothing of what was sent, and name no server.
"""

import logging

from aiohttp import hdrs
from aiohttp.web import BaseRequest, RequestHandler, Response, StreamResponse

from vault.web.problems import problem

log = logging.getLogger(__name__)


class _Unsigned(Response):
    """A response without the banner, which the library adds where no application takes it off."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)


def _refuse(
    self: RequestHandler,
    request: BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    message: str | None = None,
) -> StreamResponse:
    """Take the place of the library's own answer to what it cannot parse, or failed at."""
    del self, message
    level = logging.ERROR if status == 500 else logging.INFO
    log.log(level, "answered %d: %s", status, type(exc).__name__)
    if request.writer.output_size > 0:
        raise ConnectionError("an answer is on its way already")
    said = "something went wrong on our side" if status == 500 else "this is not HTTP/1.1"
    plain = problem(status, said)
    response = _Unsigned(status=status, headers=plain.headers, body=plain.body)
    response.force_close()
    return response


def answer_ourselves() -> None:
    """Put our answer in the place of the library's, for every server of this process."""
    RequestHandler.handle_error = _refuse  # type: ignore[method-assign]
