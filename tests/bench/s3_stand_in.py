"""
What an S3 server costs its client, and nothing more: `python -m tests.bench.s3_stand_in PORT`.

It keeps objects in memory, the oldest documents no longer than it has room; signatures are not
checked, nothing is durable, and there is no TLS. So a measurement against it is one of the client.
It takes as little of the machine as it can, since client and server share that with it.
"""

import asyncio
import sys
from collections import OrderedDict
from typing import cast
from urllib.parse import parse_qs

import uvloop
from httptools import HttpRequestParser, parse_url

ROOM_BYTES = 256 * 1024 * 1024

_NO_VERSIONS = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListVersionsResult>"""


_LISTED = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{}</ListBucketResult>"""


class Objects:
    """Everything that is kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def answer(self, method: str, url: bytes, part: str, body: bytes) -> tuple[str, bytes]:
        """Do what is asked of a path, and return status and body."""
        address = parse_url(url)
        path, query = address.path.decode(), (address.query or b"").decode()
        if method == "PUT":
            self._put(path, body)
            return "200 OK", b""
        if method == "DELETE":
            self._drop(path)
            return "204 No Content", b""
        if "list-type" in query:
            return "200 OK", self._list(path, query)
        if "uploads" in query:
            return "200 OK", b"<ListMultipartUploadsResult/>"
        if query:
            return "200 OK", _NO_VERSIONS
        found = self._kept.get(path)
        if found is None:
            return "404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>"
        if not part:
            return "200 OK", found
        first, last = part.removeprefix("bytes=").split("-")
        return "206 Partial Content", found[int(first) : int(last) + 1 if last else None]

    def _put(self, name: str, content: bytes) -> None:
        self._drop(name)
        self._kept[name] = content
        self._bytes += len(content)
        for old in list(self._kept) if self._bytes > ROOM_BYTES else ():
            if self._bytes <= ROOM_BYTES:
                break
            # Not the tree's copy, nor the log.
            if "/documents/" in old or "/bench/" in old:
                self._drop(old)

    def _list(self, path: str, query: str) -> bytes:
        """List all objects under a prefix."""
        bucket = f"/{path.strip('/')}/"
        wanted = bucket + parse_qs(query).get("prefix", [""])[0]
        names = sorted(name for name in self._kept if name.startswith(wanted))
        contents = "".join(
            f"<Contents><Key>{name.removeprefix(bucket)}</Key><ETag>e</ETag>"
            f"<LastModified>2025-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(self._kept[name])}</Size></Contents>"
            for name in names
        )
        return _LISTED.format(contents).encode()

    def _drop(self, name: str) -> None:
        self._bytes -= len(self._kept.pop(name, b""))


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Forget the last request."""
        self._url, self._part, self._body = b"", "", list[bytes]()

    def on_url(self, url: bytes) -> None:
        """Keep it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the range."""
        if name.lower() == b"range":
            self._part = value.decode()

    def on_body(self, body: bytes) -> None:
        """Keep it."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        method = self._parser.get_method().decode()
        status, body = self._objects.answer(method, self._url, self._part, b"".join(self._body))
        head = f'HTTP/1.1 {status}\r\nETag: "e"\r\nContent-Type: application/xml\r\n'
        if not status.startswith("204"):
            head += f"Content-Length: {len(body)}\r\n"
        assert self._transport is not None
        self._transport.writelines([f"{head}\r\n".encode(), body])


async def serve(port: int) -> None:
    """Serve on loopback until terminated."""
    objects, loop = Objects(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(objects), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
