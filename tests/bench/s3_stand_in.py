"""
What an S3 server costs its client, and nothing more: `python -m tests.bench.s3_stand_in PORT`.

It keeps objects in memory, the oldest documents no longer than it has room; signatures are not
checked, nothing is durable, and there is no TLS. So a measurement against it is one of the client.
"""

import sys
from collections import OrderedDict

from aiohttp import web

ROOM_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 256 * 1024

_NO_VERSIONS = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListVersionsResult>"""


_LISTED = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{}</ListBucketResult>"""


class Objects:
    """Everything that is kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, list[bytes]] = OrderedDict()
        self._bytes = 0

    async def put(self, request: web.Request) -> web.Response:
        """Keep an object."""
        chunks = [chunk async for chunk in request.content.iter_any()]
        self._drop(request.path)
        self._kept[request.path] = chunks
        self._bytes += sum(map(len, chunks))
        for name in list(self._kept):
            if self._bytes <= ROOM_BYTES:
                break
            # Not the tree's copy, nor the log.
            if "/documents/" in name or "/bench/" in name:
                self._drop(name)
        return web.Response(headers={"ETag": '"e"'})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Give an object, or part of it, or list a bucket, which has no versions."""
        if "list-type" in request.query:
            return self._list(request)
        if request.query_string:
            return web.Response(body=_NO_VERSIONS, content_type="application/xml")
        found = self._kept.get(request.path)
        if found is None:
            return web.Response(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        asked = request.http_range
        if asked.start is not None or asked.stop is not None:
            return web.Response(status=206, body=b"".join(found)[asked])
        response = web.StreamResponse(headers={"Content-Length": str(sum(map(len, found)))})
        await response.prepare(request)
        for chunk in found:
            await response.write(chunk)
        await response.write_eof()
        return response

    def _list(self, request: web.Request) -> web.Response:
        """List all objects under a prefix."""
        bucket = f"/{request.path.strip('/')}/"
        wanted = bucket + request.query.get("prefix", "")
        names = sorted(name for name in self._kept if name.startswith(wanted))
        contents = "".join(
            f"<Contents><Key>{name.removeprefix(bucket)}</Key><ETag>e</ETag>"
            f"<LastModified>2025-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{sum(map(len, self._kept[name]))}</Size></Contents>"
            for name in names
        )
        return web.Response(text=_LISTED.format(contents), content_type="application/xml")

    async def delete(self, request: web.Request) -> web.Response:
        """Drop an object."""
        self._drop(request.path)
        return web.Response(status=204)

    def _drop(self, name: str) -> None:
        self._bytes -= sum(map(len, self._kept.pop(name, ())))


def main(port: int) -> None:
    """Serve on loopback until terminated."""
    objects = Objects()
    app = web.Application(client_max_size=0)
    app.router.add_route("PUT", "/{name:.*}", objects.put)
    app.router.add_route("GET", "/{name:.*}", objects.get)
    app.router.add_route("DELETE", "/{name:.*}", objects.delete)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
