"""
The mirror: a key tree's copy in its region's bucket.

It is a chain of segments: a base holds the whole tree, each segment after it what changed since.
Every segment shows one moment of the database. Each of its rows is opened before it is written, and
its bytes are read back and compared before it counts. A segment names the one before it by its
digest and is authenticated under the root key of its generation, so whoever owns the bucket can
withhold segments but neither make nor change one. All keys in it are wrapped as in the database: it
dies with them.

The bucket is not trusted. A segment is fetched once: its rows are used as they were authenticated,
or not at all. A segment that does not verify is passed over by whoever looks for the newest, and
named.

Promises: numbers are never used twice, and an authentic segment in the bucket with a higher number
than the database ever intended shows that the database was rolled back. Only who holds the region's
seal lock writes. Not promised: that what was uploaded since the last segment is in it.
"""

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Protocol

from keys import mirror_rows, wrap
from keys.custodian import Custodian
from keys.damage import Damage, Finder, PassedOver
from keys.errors import (
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
    MirrorUnavailableError,
    RolledBackError,
)
from keys.ground.postgres import Connection
from keys.mirror_rows import Known, Progress
from keys.nodes import Tree
from keys.segment import (
    Header,
    Reader,
    Row,
    Writer,
    decode_header,
    decode_row,
    encode_header,
    encode_row,
    mac_key,
)

PREFIX = "keys/"
#: A new base is written when the segments after the last outweigh it, or become many.
SEGMENTS_MAX = 500
SEGMENTS_BYTES_MIN = 1 << 20
CHUNK_BYTES = 256 * 1024
#: No chain is longer, a base and the segments after it, and no segment larger; what is, is damaged.
CHAIN_MAX = SEGMENTS_MAX + 1
SEGMENT_BYTES_MAX = 1 << 36
#: How often the chain is looked at again when it changed meanwhile.
CHECKS = 3
#: Names that are kept of a listing, the newest of all; and how many of those whose number nobody
#: intended are looked into at a time.
NAMES_MAX, UNINTENDED_MAX = 100_000, 16
_NAME = re.compile(re.escape(PREFIX) + r"([0-9]{20})-[0-9a-f]{8}")


class Named(Protocol):
    """An object as a bucket lists it."""

    @property
    def name(self) -> str:
        """Its name."""


class Bucket(Protocol):
    """What the mirror asks of a region's bucket; failures are of the caller's kind."""

    async def put(self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None) -> None:
        """Store durably."""

    def get(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open for reading."""

    async def purge(self, name: str) -> int:
        """Remove every version."""

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Named]:
        """Yield the objects under a prefix whose names sort after another, ascending by name."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a segment turned out to be."""

    name: str
    digest: bytes = field(repr=False)
    size_bytes: int
    seen: str
    head: Tree


def name_of(number: int) -> str:
    """Return a new name for the segment of a number; names sort as the numbers do."""
    return f"{PREFIX}{number:020d}-{os.urandom(4).hex()}"


def number_of(name: str) -> int:
    """Return the number in a segment's name; raises `IntegrityError` when it has none."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise IntegrityError(f"{name} in the bucket is no segment of the mirror")
    return int(match[1])


class Mirror:
    """The mirror of one region; it tells `passed_over` of segments that do not verify."""

    def __init__(
        self,
        bucket: Bucket,
        custodian: Custodian,
        region: str,
        passed_over: PassedOver | None = None,
    ) -> None:
        self._bucket, self._custodian, self._region = bucket, custodian, region
        self._passed_over = passed_over or PassedOver()

    async def names(self, *, after: str = "") -> list[str]:
        """Return the names of segments in the bucket, oldest first; at most `NAMES_MAX` newest."""
        listed = self._bucket.list(PREFIX, after=after)
        names = deque[str](maxlen=NAMES_MAX)
        async for item in listed:
            if _NAME.fullmatch(item.name):
                names.append(item.name)
        return list(names)

    async def require_not_behind(self, conn: Connection) -> bool:
        """
        Raise `RolledBackError` when the bucket knows a segment that the database never made.

        Returns whether there is a segment at all.
        """
        now = await mirror_rows.progress(conn, self._region)
        await self.require_none_later(now.intended if now else 0)
        return now is not None and now.written > 0

    async def require_none_later(self, intended: int) -> None:
        """Raise `RolledBackError` for an authentic segment of a later number than `intended`."""
        # A name begins with its number, and is longer.
        names = await self.names(after=f"{PREFIX}{intended + 1:020d}")
        for name in names[-UNINTENDED_MAX:]:
            if await self.is_authentic(name):
                raise RolledBackError
        self._passed_over.note(self._region, PREFIX, names)

    async def is_authentic(self, name: str) -> bool:
        """Whether a segment verifies under a root key that the custodian holds."""
        try:
            async for _ in self.read(name):
                pass
        except IntegrityError:
            return False
        return True

    async def needs_write(self, conn: Connection) -> bool:
        """Whether something changed since the last segment."""
        now = await mirror_rows.progress(conn, self._region)
        if now is None or now.seen is None:
            return True
        if not now.counts_on:
            return True
        return await mirror_rows.has_changed(conn, self._region, now.seen)

    async def write(
        self,
        conn: Connection,
        root_key: bytes,
        require_keyed: Callable[[Connection], Awaitable[None]],
        *,
        base: bool = False,
        known: Known | None = None,
    ) -> Tree:
        """
        Write what changed, or a new base; returns the head that it holds.

        `root_key` is the key of the root as it is now: the caller keeps seals away meanwhile. What
        is `known` was committed since the last segment. A base replaces every copy that there is:
        `require_keyed` raises, in the transaction that reads it, where a row was lost.
        """
        before = await mirror_rows.intend(conn, self._region)
        await self.require_none_later(before.intended - 1)
        if not before.counts_on:
            async with conn.transaction():
                await mirror_rows.renumber(conn, self._region)
            base = True
        base = base or self._wants_base(before)
        check = require_keyed if base else None
        written = await self._put(conn, before, root_key, check, known=known)
        now = replace(
            before,
            name=written.name,
            digest=written.digest,
            base_bytes=written.size_bytes if base else before.base_bytes,
            segments=0 if base else before.segments + 1,
            segments_bytes=0 if base else before.segments_bytes + written.size_bytes,
            seen=written.seen,
            counts_on=True,
        )
        if not await mirror_rows.set_written(conn, self._region, now):
            raise MirrorUnavailableError("another process wrote the mirror at the same time")
        if base:
            await self._purge_before(written.name)
        return written.head

    def _wants_base(self, now: Progress) -> bool:
        bound = max(now.base_bytes, SEGMENTS_BYTES_MIN)
        return now.seen is None or now.segments >= SEGMENTS_MAX or now.segments_bytes > bound

    async def is_next_base(self, conn: Connection) -> bool:
        """Whether the next segment is a base, which replaces all that are there."""
        now = await mirror_rows.progress(conn, self._region)
        return now is None or not now.counts_on or self._wants_base(now)

    async def next_rows(self, conn: Connection, head: Tree) -> AsyncIterator[Row]:
        """Return the rows that the next segment takes, as the caller's transaction shows them."""
        now = await mirror_rows.progress(conn, self._region)
        if now is None or now.seen is None or await self.is_next_base(conn):
            return mirror_rows.whole(conn, self._region)
        return mirror_rows.changes(conn, self._region, head, now.seen)

    async def _put(
        self,
        conn: Connection,
        before: Progress,
        root_key: bytes,
        require_keyed: Callable[[Connection], Awaitable[None]] | None,
        *,
        known: Known | None,
    ) -> Written:
        base = require_keyed is not None
        name, writer = name_of(before.intended), Writer(mac_key(root_key))
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            seen, head = await mirror_rows.moment(conn, self._region)
            if head is None:
                raise RolledBackError
            if require_keyed is not None:
                await require_keyed(conn)
            header = Header(
                region=self._region,
                number=before.intended,
                generation=head.generation,
                root=head.root,
                revision=head.revision,
                root_wrap=head.root_wrap,
                previous=None if base else before.name,
                previous_digest=None if base else before.digest,
            )
            if base or before.seen is None:
                rows = mirror_rows.whole(conn, self._region)
            else:
                rows = mirror_rows.changes(conn, self._region, head, before.seen, known)
            finder = Finder(self._region, head.root, root_key)
            frames = _frames(header, rows, finder, writer)
            await self._bucket.put(name, frames, size_bytes=None)
        await self._compare_bytes(name, writer.digest)
        return Written(name, writer.digest, writer.size_bytes, seen, head)

    async def _compare_bytes(self, name: str, digest: bytes) -> None:
        """Raise `IntegrityError` unless the bucket gives back what was put."""
        found = sha256()
        async with self._bucket.get(name) as chunks:
            async for chunk in chunks:
                found.update(chunk)
        if found.digest() != digest:
            raise IntegrityError

    async def look(self, conn: Connection, after: str) -> str | None:
        """
        Read the newest segment, or the one that the look before said; returns where the next is.

        Empty at the base; None where one does not verify: then all of it is to be checked.
        """
        name, _, digest = after.partition(" ")
        if not name:
            now = await mirror_rows.progress(conn, self._region)
            if now is None or now.name is None or now.digest is None:
                return ""
            name, digest = now.name, now.digest.hex()
        if name not in await self.names():
            return None
        header = await self._verified(name, bytes.fromhex(digest))
        if header is None:
            return None
        if header.previous is None or header.previous_digest is None:
            return ""
        return f"{header.previous} {header.previous_digest.hex()}"

    async def check(self, conn: Connection) -> list[Damage]:
        """
        Read the chain from its newest segment to its base, and return what does not verify.

        What is before a segment that does not verify is not judged.
        """
        for _ in range(CHECKS):
            now = await mirror_rows.progress(conn, self._region)
            found = await self._check(now) if now is not None else []
            later = await mirror_rows.progress(conn, self._region)
            if not found or now is None or (later and later.name == now.name):
                return found
            # Another segment was written meanwhile, and what it replaced may be gone.
        return []

    async def _check(self, now: Progress) -> list[Damage]:
        if now.name is None:
            return []
        names, found = set(await self.names()), list[Damage]()
        name: str | None = now.name
        digest = now.digest
        for _ in range(CHAIN_MAX):
            if name is None:
                return found
            header = await self._verified(name, digest) if name in names else None
            if header is None and name == now.name and name in names:
                header = await self._verified(name, None)
                if header is not None:
                    says = f"is not that of {name}"
                    found.append(Damage(self._region, says, "key_mirror", self._region, "digest"))
            if header is None:
                says = "does not verify" if name in names else "is missing"
                number = number_of(name)
                return [*found, Damage(self._region, says, object=name, segment=number)]
            name, digest = header.previous, header.previous_digest
        return found

    async def _verified(self, name: str, digest: bytes | None) -> Header | None:
        """Return a segment's header, None when the segment does not verify."""
        header: Header | None = None
        try:
            async for row in self.read(name, digest=digest):
                if isinstance(row, Header):
                    header = row
        except IntegrityError:
            return None
        return header

    async def read(self, name: str, *, digest: bytes | None = None) -> AsyncIterator[Header | Row]:
        """
        Fetch a segment, once, and yield its header and its rows.

        They are authentic only once the last was yielded: by `digest`, or without one by the tag
        under the root key that the header holds, which the custodian opens. Raises `IntegrityError`
        with the segment's name for any other bytes.
        """
        reader, key = Reader(), None
        header: Header | None = None
        with self._naming(name):
            async with self._bucket.get(name) as chunks:
                async for chunk in chunks:
                    for kind, data in reader.feed(chunk):
                        if header is None:
                            header = self._header(name, kind, data)
                            key = None if digest else mac_key(await self._root_key(header))
                            yield header
                        else:
                            yield decode_row(self._region, kind, data)
                    if reader.size_bytes > SEGMENT_BYTES_MAX:
                        raise IntegrityError
                    # A bucket that always has more at hand must not keep others waiting.
                    await asyncio.sleep(0)
            reader.close(key=key, digest=digest)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise IntegrityError(
                f"{name} in the bucket of {self._region} is damaged, or not this vault's"
            ) from error

    def _header(self, name: str, kind: bytes, data: bytes) -> Header:
        if kind != b"H":
            raise IntegrityError
        header = decode_header(data)
        # Authentic bytes under another name are another segment that is passed off as this one.
        if header.region != self._region or header.number != number_of(name):
            raise IntegrityError
        return header

    async def _root_key(self, header: Header) -> bytes:
        """Return the root's key; `IntegrityError` when its generation is no more, or another."""
        context = wrap.root_context(self._region, header.generation)
        try:
            return await self._custodian.unwrap(
                self._region, header.generation, header.root_wrap, context
            )
        except (KeyDestroyedError, KeyMissingError):
            raise IntegrityError from None

    async def _purge_before(self, base: str) -> None:
        """Remove the segments that a base replaces; what stays behind does no harm."""
        for name in await self.names():
            if name < base:
                await self._bucket.purge(name)


async def _frames(
    header: Header, rows: AsyncIterator[Row], finder: Finder, writer: Writer
) -> AsyncIterator[bytes]:
    """Yield the segment's bytes; raises `DamagedError` for a row that does not open."""
    waiting = bytearray(encode_header(header))
    async for row in rows:
        finder.open(row)
        finder.require_sound(f"{header.region} is not mirrored")
        waiting += encode_row(row)
        if len(waiting) >= CHUNK_BYTES:
            yield writer.add(bytes(waiting))
            waiting.clear()
    yield writer.add(bytes(waiting)) + writer.finish()
