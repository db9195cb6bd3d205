"""
The drill's open streams: a reader that is slow, and so still reads when everything has ended.

It opens a document and takes a little of it. Then its token is revoked, or the document is
restricted, shredded or sealed; from a second after that it may get no further byte. Beside it the
same reader has a document that lives, and must get that whole, or what the others do not get proves
nothing.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

from vault.actions.credentials import create_token, revoke_token
from vault.actions.holds import restrict
from vault.actions.ingest import Upload, ingest
from vault.actions.keys import mark_sealed, seal
from vault.actions.orders import create_order
from vault.actions.shred import shred
from vault.context import Vault
from vault.domain.access import Principal, Role
from vault.domain.credentials import Grant
from vault.domain.documents import Custody, Kind
from vault.sql import documents as documents_sql
from vault.sql.connection import connection
from vault.web.listening import serving

#: What the kernel keeps for a reader who takes nothing.
RECEIVE_BYTES = 16 * 1024
#: By when whatever ended is promised to have ended for its readers, too.
CUT_SECONDS = 1.0
#: A reader who is not cut has the rest of a document long before.
REST_SECONDS = 60.0
#: Longer than whatever is in buffers.
DOCUMENT_BYTES = 4 * 1024 * 1024
TASTE_BYTES = 20_000


class SlowReader:
    """An HTTP client of one request, which takes what it is told to take and no more."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.taken = b""

    @classmethod
    async def open(cls, url: str, head: str) -> Self:
        """Connect to the server of `url` and send the lines of a request."""
        parts = urlsplit(url)
        connected = socket.socket()
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connected, (parts.hostname, parts.port))
        await loop.sock_sendall(connected, head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return cls(connected)

    async def send(self, data: bytes) -> None:
        """Send more of the request's body."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def take(self, size: int) -> None:
        """Take at least so many bytes of the answer."""
        loop = asyncio.get_running_loop()
        while len(self.taken) < size:
            piece = await loop.sock_recv(self._socket, 4096)
            if not piece:
                raise EOFError
            self.taken += piece

    def drain(self) -> int:
        """Take what has arrived already; returns how much that was."""
        before = len(self.taken)
        try:
            while piece := self._socket.recv(65536):
                self.taken += piece
        except (BlockingIOError, ConnectionError):
            pass
        return len(self.taken) - before

    async def rest(self) -> int:
        """Take all that still comes, until the end or the cut; returns how much that was."""
        before, loop = len(self.taken), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(REST_SECONDS):
                while piece := await loop.sock_recv(self._socket, 65536):
                    self.taken += piece
        except ConnectionError:
            pass
        return len(self.taken) - before

    @property
    def body(self) -> bytes:
        """What was taken of the answer's body."""
        return self.taken.partition(b"\r\n\r\n")[2]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@dataclass
class StreamLine:
    """One open stream, and what its reader got once it had ended."""

    document: UUID
    ended_by: str
    size_bytes: int
    got_before: int = 0
    got_after: int = 0
    whole: bool = False

    @property
    def holds(self) -> bool:
        """Whether it got nothing after the end, or all of it where nothing ended."""
        living = self.ended_by == "nothing"
        return self.whole if living else self.got_after == 0 and not self.whole


@dataclass
class _Open:
    line: StreamLine
    reader: SlowReader
    content: bytes
    token: UUID


async def attack_streams(
    vault: Vault, region: str, desk: Principal, operator: Principal
) -> list[StreamLine]:
    """Open a stream for each way to end, end it, and say what its reader still got."""
    dpo = Principal("drill:dpo", Role.DPO, frozenset({region}))

    async def revoked(one: _Open) -> None:
        await revoke_token(vault, operator, one.token)

    async def restricted(one: _Open) -> None:
        await restrict(vault, dpo, one.line.document, "drill")

    async def shredded(one: _Open) -> None:
        await shred(vault, desk, one.line.document, "test")

    async def sealed(one: _Open) -> None:
        await shredded(one)
        await seal(vault, operator, region)
        await _until_sealed(vault, region, one.line.document)

    async def nothing(one: _Open) -> None:
        del one

    ends = (nothing, revoked, restricted, shredded, sealed)
    async with serving(vault.config, vault) as url:
        streams = [await _opened(vault, url, region, desk, operator, end.__name__) for end in ends]
        return [await _ended(one, end) for one, end in zip(streams, ends, strict=True)]


async def _opened(
    vault: Vault, url: str, region: str, desk: Principal, operator: Principal, ended_by: str
) -> _Open:
    content = b"%PDF-1.4\n%drill " + os.urandom(DOCUMENT_BYTES)
    view = await create_order(
        vault, desk, region=region, customer="drill", numbers=["+442079460123"]
    )
    upload = Upload(_whole(content), None, "drill.pdf", len(content), None)
    document = await ingest(vault, desk, view.order.id, Kind.PASSPORT, upload)
    token, secret = await create_token(
        vault, operator, Grant(Role.PORTING, frozenset({region})), label="drill"
    )
    reader = await SlowReader.open(
        url,
        f"GET /v1/documents/{document.id}/content HTTP/1.1\nHost: drill\nConnection: close\n"
        f"Authorization: Bearer {secret}\nAccess-Purpose: verify-identity",
    )
    await reader.take(TASTE_BYTES)
    return _Open(StreamLine(document.id, ended_by, len(content)), reader, content, token)


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _ended(one: _Open, end: Callable[[_Open], Awaitable[None]]) -> StreamLine:
    await end(one)
    await asyncio.sleep(CUT_SECONDS)
    one.reader.drain()
    one.line.got_before = len(one.reader.body)
    one.line.got_after = await one.reader.rest()
    one.line.whole = one.reader.body == one.content
    one.reader.close()
    return one.line


async def _until_sealed(vault: Vault, region: str, document: UUID) -> None:
    while True:
        await mark_sealed(vault, region)
        async with connection(vault.pool) as conn:
            found = await documents_sql.find(conn, document)
        if found is not None and found.custody is Custody.SEALED:
            return
        await asyncio.sleep(0.05)
