"""Parts of the drill: backups, a bucket that lies, and readers that are slow."""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from keys.segment import Writer, mac_key
from vault.actions.credentials import create_token, revoke_token
from vault.actions.holds import restrict
from vault.actions.ingest import Upload, ingest
from vault.actions.keys import mark_sealed, seal
from vault.actions.orders import create_order
from vault.actions.shred import shred
from vault.adapters.postgres.cluster import run_tool
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.context import Vault
from vault.domain.access import Principal, Role
from vault.domain.credentials import Grant
from vault.domain.documents import Custody, Kind
from vault.errors import VaultError
from vault.sql import documents as documents_sql
from vault.sql.connection import connection
from vault.web.listening import serving

# ---- The backups of the drill: what a careful operator keeps, made by PostgreSQL's own tools.
#
# A base backup, a dump, all WAL since in an archive with a named point after each step, and a copy
# of every object that was ever in the bucket.

ARCHIVE_SECONDS = 60.0
RECOVERY_SECONDS = 60.0
#: How the name of a segment ends that is not all there yet.
_COMING = ".coming"


class Backups:
    """All that was kept of a vault with an embedded PostgreSQL."""

    def __init__(self, home: Path, place: Path) -> None:
        self._home, self._place = home, place
        self.dump, self.base = place / "database.dump", place / "base"
        self.archive, self.bucket = place / "wal", place / "bucket"
        self.server = EmbeddedPostgres(home, archive=self.archive)
        self.points = list[str]()

    async def begin(self) -> str:
        """Start the server with its WAL archived; returns the address."""
        self._place.mkdir(mode=0o711)
        self.archive.mkdir()
        dsn = await self.server.start()
        self._give(self.archive)
        conn = await asyncpg.connect(dsn)
        try:
            await conn.execute("alter system set archive_mode = on")
            segment = f"{self.archive}/%f"
            # Whoever looks for it meanwhile finds all of it, or nothing.
            copy = f"cp %p {segment}{_COMING} && mv {segment}{_COMING} {segment}"
            command = f"test -f {segment} || {{ {copy}; }}"
            await conn.execute(f"alter system set archive_command = '{command}'")
        finally:
            await conn.close()
        await self.server.stop()
        return await self.server.start()

    def segments(self) -> list[Path]:
        """Return the files of the archive that are all there, the oldest first."""
        return sorted(path for path in self.archive.iterdir() if path.suffix != _COMING)

    async def take_dump(self, dsn: str) -> None:
        """Dump the database."""
        await run_tool("pg_dump", "--format=custom", f"--file={self.dump}", dsn=dsn)

    async def take_base(self, dsn: str) -> None:
        """Copy the whole cluster while it runs."""
        options = ("--wal-method=none", "--checkpoint=fast", "--no-verify-checksums")
        await run_tool("pg_basebackup", f"--pgdata={self.base}", *options, dsn=dsn)

    async def mark(self, dsn: str, name: str) -> None:
        """Name this moment in the WAL, and keep every object that the bucket holds now."""
        conn = await asyncpg.connect(dsn)
        try:
            await conn.fetchval("select pg_create_restore_point($1)", name)
            last = await conn.fetchval("select pg_walfile_name(pg_switch_wal())")
        finally:
            await conn.close()
        async with asyncio.timeout(ARCHIVE_SECONDS):
            # PostgreSQL archives at its own pace, and tells nobody.
            while not (self.archive / last).exists():  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.05)
        self.points.append(name)
        self.keep_objects()

    def keep_objects(self) -> None:
        """Keep each version of each object that is not kept yet."""
        source = self._home / "objects"
        for path in source.rglob("*"):
            if not path.is_file() or ".partial" in path.parts:
                continue
            data = path.read_bytes()
            version = hashlib.sha256(data).hexdigest()[:16]
            kept = self.bucket / version / path.relative_to(source)
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)

    def bucket_copies(self, region: str) -> list[Path]:
        """Return directories that each look like a region's bucket."""
        return sorted(self.bucket.glob(f"*/{region}"))

    @asynccontextmanager
    async def recovered(self, home: Path, point: str | None) -> AsyncIterator[str]:
        """Run a copy of the base backup, recovered up to a point, or as far as the WAL goes."""
        await self.recover(home, point)
        server = EmbeddedPostgres(home)
        try:
            yield await server.start()
        finally:
            await server.stop()
            shutil.rmtree(home)

    async def recover(self, home: Path, point: str | None) -> None:
        """Make a home whose database is the base backup, recovered and promoted."""
        data = home / "postgres" / "data"
        home.mkdir(mode=0o711)
        data.parent.mkdir(mode=0o700)
        shutil.copytree(self.base, data)
        target = f"recovery_target_name = '{point}'\n" if point else ""
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"archive_mode = off\nrestore_command = 'cp {self.archive}/%f %p'\n{target}"
                "recovery_target_action = 'promote'\n"
            )
        (data / "recovery.signal").touch()
        for path in (data.parent, *data.parent.rglob("*")):
            self._give(path)
        server = EmbeddedPostgres(home, archive=self.archive)
        dsn = await server.start()
        try:
            await _promoted(dsn)
        finally:
            await server.stop()

    def _give(self, path: Path) -> None:
        """Give a path to the account that runs PostgreSQL, which is another one for root."""
        owner = (self._home / "postgres" / "data").stat()
        os.chown(path, owner.st_uid, owner.st_gid)


async def _promoted(dsn: str) -> None:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            try:
                conn = await asyncpg.connect(dsn)
                try:
                    if not await conn.fetchval("select pg_is_in_recovery()"):
                        return
                finally:
                    await conn.close()
            except (OSError, asyncpg.PostgresError) as error:
                if isinstance(error, asyncpg.InvalidCatalogNameError):
                    raise VaultError("the recovered cluster holds no vault") from error
            await asyncio.sleep(0.1)


# ---- The lying bucket of the drill: who owns the bucket, and no key, tries to have a document
# shredded.
#
# It adds segments of the mirror that say so, that lead in a circle, or that are no segments, and a
# checkpoint of a log that is longer than any. As a control the same row is put in once more by
# somebody who has the root's key: then it must work, or the lies would prove nothing.

_TAG = 37
_NUMBER = 9_999_999_990


class LyingBucket:
    """What is added to a region's bucket against one document that lives."""

    def __init__(self, bucket: Path, victim: UUID) -> None:
        self._bucket, self._victim = bucket, victim
        self._newest = max((bucket / "keys").iterdir(), key=lambda path: path.name).read_bytes()

    def lie(self) -> set[str]:
        """Add what no key stands behind; returns the names of the segments."""
        circle = _name(0)
        lies = {
            circle: self._segment(_NUMBER, previous=circle) + _frame(b"E", bytes(32)),
            f"keys/{_NUMBER + 1:020d}-0badf00d": self._segment(_NUMBER + 1)
            + _frame(b"E", bytes(32)),
            f"keys/{_NUMBER + 2:020d}-0badf00d": self._newest,
            f"keys/{_NUMBER + 3:020d}-0badf00d": b"junk",
        }
        for name, data in lies.items():
            (self._bucket / name).write_bytes(data)
        (self._bucket / f"log/checkpoint-{_NUMBER:020d}").write_bytes(b"junk")
        (self._bucket / f"log/minimum-{_NUMBER:020d}").write_bytes(b"junk")
        return set(lies)

    def tell_with_key(self, root_key: bytes) -> None:
        """Add the row as somebody does who has the root's key."""
        newest = max((self._bucket / "keys").iterdir(), key=lambda path: path.name)
        self._newest = newest.read_bytes()
        number, writer = int(newest.name[:20]) + 1, Writer(mac_key(root_key))
        data = writer.add(self._segment(number)) + writer.finish()
        (self._bucket / f"keys/{number:020d}-0badf00d").write_bytes(data)

    def _segment(self, number: int, *, previous: str | None = None) -> bytes:
        """Return the newest segment with another number and a row that shreds the victim."""
        (length,) = struct.unpack_from(">I", self._newest, 1)
        header = json.loads(self._newest[5 : 5 + length])
        header["number"] = number
        if previous is not None:
            header.update(previous=previous, previous_digest=sha256(b"").hexdigest())
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        gone = struct.pack(">16sQ", self._victim.bytes, header["generation"])
        return _frame(b"H", text) + self._newest[5 + length : -_TAG] + _frame(b"X", gone)


def _name(more: int) -> str:
    return f"keys/{_NUMBER + more:020d}-0badf00d"


def _frame(letter: bytes, data: bytes) -> bytes:
    return struct.pack(">cI", letter, len(data)) + data


# ---- The drill's open streams: a reader that is slow, and so still reads when everything has
# ended.
#
# It opens a document and takes a little of it. Then its token is revoked, or the document is
# restricted, shredded or sealed; from a second after that it may get no further byte. Beside it
# the same reader has a document that lives, and must get that whole, or what the others do not get
# proves nothing.

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
