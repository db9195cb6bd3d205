"""
The adversary of the demonstration and the drill: tries every key it learns on everything it has.

It has any number of states of the database, every object that was ever in the bucket, and all that
the custodian holds now. Written from docs/formats.md alone: it shares no line with the vault, knows
only the formats, and follows no rule about which key is whose.
"""

import base64
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY, NONCE = 32, 12
#: A wrap: version, nonce, key and tag; and how far behind a document's id a row may have it.
_WRAP, _NEAR = 1 + NONCE + KEY + 16, 200
#: A page of PostgreSQL's WAL, and its header: a segment's first page has the longer one.
_PAGE, _FIRST_HEADER, _HEADER = 8192, 40, 24


class Attacker:
    """What the adversary of one region has, and what it has learned."""

    def __init__(self, region: str) -> None:
        self._region = region
        #: Sealed bytes with the context that binds them; a set, since states repeat each other.
        self._sealed: set[tuple[bytes, bytes]] = set()
        self._objects: dict[UUID, set[bytes]] = {}
        self._scopes: set[tuple[UUID, int]] = set()
        self.keys: set[bytes] = set()

    @property
    def documents(self) -> list[UUID]:
        """Which documents it has the object of."""
        return list(self._objects)

    @property
    def wraps(self) -> int:
        """How many different wraps and pages it has."""
        return len(self._sealed)

    async def take_database(self, dsn: str) -> None:
        """Take every wrap out of a database, in whatever state it is."""
        conn = await asyncpg.connect(dsn)
        try:
            for row in await conn.fetch("select * from key_tree where region = $1", self._region):
                self._take_root(row["generation"], row["root_wrap"])
            for row in await conn.fetch("select * from key_node where region = $1", self._region):
                self._take_page(row["id"], row["epoch"], row["page"])
            for row in await conn.fetch("select * from key_scope where region = $1", self._region):
                self._scopes.add((row["id"], row["epoch"]))
            for row in await conn.fetch("select * from data_key where region = $1", self._region):
                self._take_key(row["scope"], row["scope_epoch"], row["id"], row["wrap"])
            rows = await conn.fetch(
                "select canary from key_generation where region = $1 and canary is not null",
                self._region,
            )
            for row in rows:
                self._sealed.add((row["canary"], b"portvault/canary/v1"))
        finally:
            await conn.close()

    def look_for(self, identity: UUID, scope: UUID) -> None:
        """Look in WAL for wraps of something that no row and no object tells of."""
        self._objects.setdefault(identity, set())
        self._scopes.add((scope, 1))

    def take_wal(self, wal: bytes) -> int:
        """
        Take wraps of documents out of WAL, of transactions that were rolled back, too.

        Where the id of an object stands beside a scope's, whatever follows may be a wrap of it,
        under any key that the scope ever had. Returns how many places there are.
        """
        wal, count = without_headers(wal), 0
        for document in self._objects:
            at = wal.find(document.bytes)
            while at >= 0:
                near = wal[at : at + _NEAR]
                for scope, epoch in self._scopes:
                    if scope.bytes in near:
                        count += 1
                        for start in range(len(near) - _WRAP):
                            wrapped = near[start : start + _WRAP]
                            self._take_key(scope, epoch, document, wrapped)
                at = wal.find(document.bytes, at + 1)
        return count

    def take_bucket(self, bucket: Path) -> None:
        """Take every document and every segment of the mirror out of a copy of the bucket."""
        for path in (bucket / "keys").glob("*"):
            self._take_segment(path.read_bytes())
        for path in (bucket / "documents").glob("*"):
            self._objects.setdefault(UUID(path.name), set()).add(path.read_bytes())

    def take_custodian(self, directory: Path) -> int:
        """Take the root keys that a file custodian still holds; returns how many."""
        found = [path.read_bytes() for path in directory.glob(f"{self._region}-*.key")]
        self.keys.update(key for key in found if len(key) == KEY)
        return len(found)

    def _take_root(self, generation: int, wrapped: bytes) -> None:
        context = f"portvault/root-key/v1/{self._region}/{generation}"
        self._sealed.add((wrapped, context.encode()))

    def _take_page(self, node: int, epoch: int, page: bytes) -> None:
        self._sealed.add((page, f"portvault/page/v1/{self._region}/{node}/{epoch}".encode()))

    def _take_key(self, scope: UUID, epoch: int, identity: UUID, wrapped: bytes) -> None:
        context = f"portvault/data-key/v1/{self._region}/{scope}/{epoch}/{identity}"
        self._sealed.add((wrapped, context.encode()))

    def _take_segment(self, data: bytes) -> None:
        for letter, body in _frames(data):
            if letter == b"H":
                head = json.loads(body)
                self._take_root(head["generation"], base64.b64decode(head["root_wrap"]))
            elif letter == b"N":
                node, _, epoch, _, _, _ = struct.unpack_from(">QBQQBQ", body)
                self._take_page(node, epoch, body[34:])
            elif letter == b"K":
                identity, scope, epoch = struct.unpack_from(">16s16sQ", body)
                self._take_key(UUID(bytes=scope), epoch, UUID(bytes=identity), body[40:])

    def learn(self) -> int:
        """Open all that can be opened, with what that gives too; returns how many keys it knows."""
        waiting, closed = list(self.keys), set(self._sealed)
        while waiting:
            key = AESGCM(waiting.pop())
            for item in list(closed):
                opened = _open(key, *item)
                if opened is not None:
                    closed.discard(item)
                    fresh = set(_split(opened)) - self.keys
                    self.keys |= fresh
                    waiting += fresh
        return len(self.keys)

    def read(self, documents: Iterable[UUID]) -> dict[UUID, bytes]:
        """Return every one of the documents that some key that was learned decrypts."""
        streams = [_derive(key, "content") for key in self.keys]
        found = {}
        for document in documents:
            context = f"portvault/document/v1/{self._region}/{document}".encode()
            for sealed in self._objects.get(document, ()):
                for key in streams:
                    content = _decrypt(key, sealed, context)
                    if content is not None:
                        found[document] = content
        return found


def without_headers(wal: bytes) -> bytes:
    """Return what a segment of WAL holds, in one piece where it crosses from page to page."""
    rest = range(_PAGE, len(wal), _PAGE)
    return wal[_FIRST_HEADER:_PAGE] + b"".join(wal[at + _HEADER : at + _PAGE] for at in rest)


def _frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        letter, length = struct.unpack_from(">cI", data, at)
        yield letter, data[at + 5 : at + 5 + length]
        at += 5 + length


def _open(key: AESGCM, sealed: bytes, context: bytes) -> bytes | None:
    nonce, body = sealed[1 : 1 + NONCE], sealed[1 + NONCE :]
    try:
        return key.decrypt(nonce, body, sealed[:1] + context)
    except InvalidTag:
        return None


def _split(opened: bytes) -> Iterator[bytes]:
    for at in range(0, len(opened), KEY):
        key = opened[at : at + KEY]
        if any(key):
            yield key


def _derive(key: bytes, purpose: str) -> bytes:
    info = f"portvault/derive/v1/{purpose}".encode()
    return HKDFExpand(algorithm=SHA256(), length=KEY, info=info).derive(key)


def _decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes | None:
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        return decryptor.update(sealed) + decryptor.finalize()
    except (InvalidTag, ValueError):
        return None
