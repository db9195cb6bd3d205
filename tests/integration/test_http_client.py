"""The client under the S3 store, and servers that are slow, cut, lie, or speak when not asked."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from vault.adapters.http_client import BUFFER_BYTES, HEAD_BYTES_MAX, HttpClient

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECONDS = 0.5
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: x\r\n\r\nhello"


class Server:
    """Runs a script for each connection, and counts them."""

    def __init__(self, script: Script) -> None:
        self.script, self.connections = script, 0
        self.heads: list[bytes] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            await self.script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Read a request whose body is as long as it says, and return the body."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        _, found, rest = head.lower().partition(b"content-length: ")
        return await reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[Server, HttpClient]]:
    """Give a server and a client of it."""
    server = Server(script)
    listening = await asyncio.start_server(server.run, "127.0.0.1", 0)
    client = HttpClient(
        f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", secure=False, timeout_seconds=SECONDS
    )
    try:
        yield server, client
    finally:
        await client.close()
        listening.close()


def always(*answers: bytes) -> Script:
    """Give these answers in turn, the last one for ever, on each connection anew."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while True:
            await Server(always()).request(reader)
            writer.write(left.pop(0) if len(left) > 1 else left[0])

    return script


def saying(said: bytes) -> Script:
    """Answer one request with this, and wait until the client ends the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        writer.write(said)
        assert await reader.read() == b""

    return script


async def ask(client: HttpClient, *, again: bool = True) -> tuple[int, bytes]:
    """Send a request, and return status and body."""
    exchange = await client.send("GET", "/x", {"Host": "h"}, again=again)
    try:
        await exchange.answer()
        return exchange.status, await exchange.whole(1 << 30)
    finally:
        exchange.end()


async def test_a_connection_is_kept() -> None:
    """One request after the other goes over one connection, two at once over two."""
    async with serving(always(HELLO)) as (server, client):
        for _ in range(3):
            assert await ask(client) == (200, b"hello")
        assert server.connections == 1
        one, other = await asyncio.gather(ask(client), ask(client))
        assert one == other == (200, b"hello")
        assert server.connections == 2


async def test_a_request_as_it_is_sent() -> None:
    """Method, target, headers and body, and nothing else."""
    wanted = b"PUT /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(len(wanted)))
        writer.write(HELLO)

    async with serving(script) as (_, client):
        headers = {"Host": "h", "Content-Length": "4"}
        exchange = await client.send("PUT", "/a?b=c", headers, b"body")
        await exchange.answer()
        assert exchange.headers["etag"] == "x"
        exchange.end()
    assert seen == [wanted]


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "a\0b"])
async def test_a_header_is_one_line(bad: str) -> None:
    """What would be a second header, or a second request, is not sent."""
    async with serving(always(HELLO)) as (server, client):
        with pytest.raises(ValueError, match="one line"):
            await client.send("GET", "/", {"Host": bad})
        with pytest.raises(ValueError, match="one line"):
            await client.send("GET", bad, {})
        assert server.connections == 0


async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and close without a word."""
    await Server(once).request(reader)
    writer.write(HELLO)


async def test_a_kept_connection_that_was_closed() -> None:
    """It is seen in time, and the next request takes another one."""
    async with serving(once) as (server, client):
        for number in range(1, 4):
            assert await ask(client, again=False) == (200, b"hello")
            assert server.connections == number
            await asyncio.sleep(0.05)


async def hang_up_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the second request of a connection, and close."""
    await Server(once).request(reader)
    writer.write(HELLO)
    await Server(once).request(reader)


async def test_what_may_be_sent_again_is() -> None:
    """A server that closes as the request comes gets it once more, where that does no harm."""
    async with serving(hang_up_on_the_second) as (server, client):
        assert await ask(client) == (200, b"hello")
        assert await ask(client) == (200, b"hello")
        assert server.connections == 2
    async with serving(hang_up_on_the_second) as (server, client):
        assert await ask(client) == (200, b"hello")
        with pytest.raises(ConnectionError):
            await ask(client, again=False)
        assert server.connections == 1


async def test_a_new_connection_that_is_cut_is_no_reason_to_try_again() -> None:
    """A server that always hangs up is asked once."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)

    async with serving(script) as (server, client):
        with pytest.raises(ConnectionError):
            await ask(client)
        assert server.connections == 1


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nETag: late\r\n\r\n"
)
INFORMED = b"HTTP/1.1 100 Continue\r\nETag: early\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"


@pytest.mark.parametrize("answer", [HELLO, CHUNKED, INFORMED + HELLO, INFORMED + CHUNKED])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_in_drips(answer: bytes, size: int) -> None:
    """Wherever it is cut into pieces, an answer is the same, and the connection is kept."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await Server(once).request(reader)
            for start in range(0, len(answer), size):
                writer.write(answer[start : start + size])
                await asyncio.sleep(0.001)

    async with serving(script) as (server, client):
        for _ in range(2):
            assert await ask(client) == (200, b"hello")
        assert server.connections == 1


async def test_an_answer_that_ends_with_its_connection() -> None:
    """Without a length the end of the connection is the end of the answer."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        writer.write(b"HTTP/1.1 403 No\r\n\r\nhello")

    async with serving(script) as (server, client):
        assert await ask(client) == (403, b"hello")
        assert await ask(client) == (403, b"hello")
        assert server.connections == 2


@pytest.mark.parametrize("answer", [HELLO, CHUNKED])
async def test_an_answer_that_is_cut(answer: bytes) -> None:
    """Whatever byte it ends before, an answer that is not whole is an error."""
    ends = iter(range(len(answer)))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        writer.write(answer[: next(ends)])

    async with serving(script) as (server, client):
        for _ in answer:
            with pytest.raises(ConnectionError):
                await ask(client)
        assert server.connections == len(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        b"\x16\x03\x01",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (HEAD_BYTES_MAX // 6 + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_BYTES_MAX,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (HEAD_BYTES_MAX // 25 + 1),
    ],
)
async def test_what_is_no_answer(answer: bytes) -> None:
    """Another protocol, two lengths, a head without end: an error, and the connection ends."""
    async with serving(saying(answer)) as (_, client):
        with pytest.raises(ConnectionError):
            await ask(client)


async def test_a_second_answer_is_nobodys() -> None:
    """What a server says without being asked never answers the next request."""
    lie = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nlie"
    for script in (always(HELLO + lie, HELLO), always(HELLO + b"x", HELLO)):
        async with serving(script) as (server, client):
            assert await ask(client) == (200, b"hello")
            server.script = always(HELLO)
            assert await ask(client) == (200, b"hello")
            assert server.connections == 2


async def test_a_late_second_answer_is_nobodys() -> None:
    """The same, said while the connection rests."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        writer.write(HELLO)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nlie")
        assert await reader.read() == b""

    async with serving(script) as (server, client):
        assert await ask(client) == (200, b"hello")
        await asyncio.sleep(0.1)
        server.script = always(HELLO)
        assert await ask(client) == (200, b"hello")
        assert server.connections == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", HELLO[:-1]])
async def test_a_silent_server(said: bytes) -> None:
    """However far its answer had come, a server that says no more is given up."""
    async with serving(saying(said)) as (_, client):
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match="no word"):
            await ask(client)
        assert SECONDS <= time.monotonic() - begun < 4 * SECONDS


async def test_a_body_may_take_longer_than_silence() -> None:
    """While the body comes slowly the server may be silent."""
    taken: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await Server(once).request(reader))
        writer.write(EMPTY)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(SECONDS * 0.4)
            yield b"x"

    async with serving(script) as (_, client):
        exchange = await client.send("PUT", "/", {"Content-Length": "4"}, None)
        sending = asyncio.create_task(exchange.send_body(slow()))
        await exchange.answer()
        await sending
        exchange.end()
    assert taken == [b"xxxx"]


async def test_an_answer_before_the_body() -> None:
    """It is given at once; the connection, on which half a request stands, is not used again."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    async with serving(script) as (server, client):
        exchange = await client.send("PUT", "/", {"Content-Length": "1000000"}, None)
        sending = asyncio.create_task(exchange.send_body(endless()))
        await exchange.answer()
        assert (exchange.status, await exchange.whole(100)) == (403, b"no")
        exchange.end()
        with pytest.raises(ConnectionError):
            await sending
        server.script = always(HELLO)
        assert await ask(client) == (200, b"hello")
        assert server.connections == 2


async def test_a_body_that_fails_ends_the_connection() -> None:
    """The server never takes half a body for a whole one."""
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            assert await reader.read() == b"x"
        finally:
            ended.set()

    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.05)
        raise RuntimeError

    async with serving(script) as (_, client):
        exchange = await client.send("PUT", "/", {"Content-Length": "2"}, None)
        with pytest.raises(RuntimeError):
            await exchange.send_body(failing())
        with pytest.raises(ConnectionError):
            await exchange.answer()
        exchange.end()
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_slow_reader_holds_the_server_up() -> None:
    """What nobody has read yet is bounded, and to read late is no silence of the server."""
    size, sent = 32 * 1024 * 1024, 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await Server(once).request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(64 * 1024))
            await writer.drain()
            sent += 64 * 1024
        assert await reader.read() == b""

    async with serving(script) as (_, client):
        exchange = await client.send("GET", "/", {})
        await exchange.answer()
        await asyncio.sleep(2 * SECONDS)
        # What lies in the system's own buffers is not ours to bound.
        assert BUFFER_BYTES <= sent < size // 2
        assert len(await exchange.whole(2 * size)) == size
        exchange.end()


async def test_an_answer_that_nobody_reads_is_not_kept() -> None:
    """A connection that still holds its server up is not used again."""
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BUFFER_BYTES + bytes(BUFFER_BYTES)
    async with serving(always(big)) as (server, client):
        for _ in range(3):
            exchange = await client.send("GET", "/", {})
            await exchange.answer()
            await asyncio.sleep(0.05)
            exchange.end()
        assert len((await ask(client))[1]) == BUFFER_BYTES
        assert server.connections == 4


@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"])
async def test_a_connection_that_ends_while_much_is_unread(closing: bytes) -> None:
    """All of it is there to be read, and nothing goes wrong beside it."""
    size, wrong = BUFFER_BYTES + 1000, list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    head = b"HTTP/1.1 200 OK\r\n" + closing + b"Content-Length: %d\r\n\r\n" % size
    async with serving(always(head + bytes(size))) as (_, client):
        exchange = await client.send("GET", "/", {})
        await exchange.answer()
        await asyncio.sleep(0.1)
        assert len(await exchange.whole(2 * size)) == size
        exchange.end()
    assert wrong == []


async def test_a_wait_that_was_cancelled_may_be_begun_again() -> None:
    """The answer is still that of the same request."""
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        await go_on.wait()
        writer.write(HELLO)

    async with serving(script) as (server, client):
        exchange = await client.send("GET", "/", {})
        waiting = asyncio.create_task(exchange.answer())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        go_on.set()
        await exchange.answer()
        assert await exchange.whole(100) == b"hello"
        exchange.end()
        assert server.connections == 1


async def test_nobody_waits_after_the_end() -> None:
    """An exchange that was ended, or whose client was closed, says so."""
    async with serving(always(HELLO)) as (_, client):
        exchange = await client.send("GET", "/", {})
        exchange.end()
        with pytest.raises(ConnectionError, match="ended"):
            await exchange.answer()
        other = await client.send("GET", "/", {})
        await client.close()
        with pytest.raises(ConnectionError):
            await other.answer()


async def test_the_wait_for_an_answer_begins_when_the_body_ends() -> None:
    """A slow body and then a slow server, each within the limit, are no silent server."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        await asyncio.sleep(SECONDS * 0.6)
        writer.write(EMPTY)

    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(SECONDS * 0.8)
        yield b"x"

    async with serving(script) as (_, client):
        exchange = await client.send("PUT", "/", {"Content-Length": "1"}, None)
        sending = asyncio.create_task(exchange.send_body(slow()))
        await exchange.answer()
        await sending
        exchange.end()


async def test_connections_that_rested_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are closed, also those that nobody would have taken again."""
    async with serving(always(HELLO)) as (server, client):
        await asyncio.gather(*(ask(client) for _ in range(3)))
        assert server.connections == len(client._wires) == 3
        monkeypatch.setattr("vault.adapters.http_client.KEEPALIVE_SECONDS", 0.0)
        await ask(client)
        assert server.connections == 4
        assert len(client._wires) == 1


async def test_nothing_is_left_of_what_was_tried_again() -> None:
    """The connection that was closed is let go of when the request goes over another one."""
    async with serving(hang_up_on_the_second) as (_, client):
        for _ in range(4):
            assert await ask(client) == (200, b"hello")
        assert len(client._wires) == 1


async def test_a_closed_client() -> None:
    """What was under way is not sent again, and nothing new is."""
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(once).request(reader)
        writer.write(HELLO)
        await Server(once).request(reader)
        asked.set()
        await reader.read()

    async with serving(script) as (server, client):
        assert await ask(client) == (200, b"hello")
        waiting = asyncio.create_task(ask(client))
        await asked.wait()
        await client.close()
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await ask(client)
        assert server.connections == 1
        assert not client._wires


@pytest.mark.parametrize("host", ["a..b:1", f"{'x' * 70}:1", "no-such-host.invalid:1"])
async def test_a_name_that_is_none(host: str) -> None:
    """It is an error like a server that is away."""
    client = HttpClient(host, secure=False, timeout_seconds=5)
    with pytest.raises(OSError):
        await ask(client)
    await client.close()


class Resolving(asyncio.SelectorEventLoop):
    """A loop that knows the addresses of every name."""

    addresses: Sequence[tuple[str, int]] = ()

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        """Return them."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in self.addresses]


def test_an_address_that_swallows_everything() -> None:
    """The next address of the name is tried meanwhile."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())

        async def first_address_is_dead(loop: Resolving) -> None:
            async with serving(always(HELLO)) as (_, client):
                loop.addresses = [full.getsockname(), ("127.0.0.1", client._port)]
                assert await ask(client) == (200, b"hello")

        with asyncio.Runner(loop_factory=Resolving) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, Resolving)
            runner.run(first_address_is_dead(loop))
        for one in waiting:
            one.close()
