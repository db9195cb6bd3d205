"""
The adversary of the demonstration and the drill: tries every key it learns on everything it has.

It has any number of states of the database, every object that was ever in the bucket, and all that
the custodian holds now. Written from docs/formats.md alone: it shares no line with the vault, knows
only the formats, and follows no rule about which key is whose.
"""

import base64
import binascii
import hashlib
import hmac
import io
import itertools
import json
import re
import struct
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
        #: Encrypted bytes with the context that binds them; a set, since states repeat each other.
        self._encrypted: set[tuple[bytes, bytes]] = set()
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
        return len(self._encrypted)

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
                self._encrypted.add((row["canary"], b"portvault/canary/v1"))
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
        self._encrypted.add((wrapped, context.encode()))

    def _take_page(self, node: int, epoch: int, page: bytes) -> None:
        self._encrypted.add((page, f"portvault/page/v1/{self._region}/{node}/{epoch}".encode()))

    def _take_key(self, scope: UUID, epoch: int, identity: UUID, wrapped: bytes) -> None:
        context = f"portvault/data-key/v1/{self._region}/{scope}/{epoch}/{identity}"
        self._encrypted.add((wrapped, context.encode()))

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
        waiting, closed = list(self.keys), set(self._encrypted)
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
            for encrypted in self._objects.get(document, ()):
                for key in streams:
                    content = _decrypt(key, encrypted, context)
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


def _open(key: AESGCM, encrypted: bytes, context: bytes) -> bytes | None:
    nonce, body = encrypted[1 : 1 + NONCE], encrypted[1 + NONCE :]
    try:
        return key.decrypt(nonce, body, encrypted[:1] + context)
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


def _decrypt(key: bytes, encrypted: bytes, context: bytes) -> bytes | None:
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        return decryptor.update(encrypted) + decryptor.finalize()
    except (InvalidTag, ValueError):
        return None


# ---- The adversary that guesses: it knows candidates, and looks whether anything stored confirms
# one.
#
# It has a few telephone numbers, names, references and files that may have been in the vault,
# hashes each in every plausible way, alone and together with what the rows say in clear, and
# compares with everything that was stored: each column of each table, objects and their names, log
# lines, WAL. Hashes with a key that is no secret count as hashes without one. It shares no line
# with the vault.

#: How much of a digest's beginning or end is enough to recognise it by.
WINDOW = 8
#: A candidate that is shorter is not looked for in clear: it would be found anywhere.
CLEAR_BYTES_MIN = 8
#: How much of a file is looked for in clear.
PIECE_BYTES = 32
_SEPARATORS = ("", "\n", "\0", " ", ",", ", ", ";", ":", "|", "/", "-", "_")
_ALL = tuple(
    name
    for name in sorted(hashlib.algorithms_available)
    # Those without a length of their own are no digests.
    if not name.startswith("shake")
)
_COMMON = ("md5", "sha1", "sha256", "sha512", "blake2b")
_NAMESPACES = (uuid.NAMESPACE_DNS, uuid.NAMESPACE_URL, uuid.NAMESPACE_OID, uuid.NAMESPACE_X500)
_ENCODED = re.compile(rb"[A-Za-z0-9+/_-]{11,}")
_HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
_UUID = re.compile(rb"(?:[0-9a-f]{4}-?){8}")
_UUID_BYTES, _VERSION_AT = 16, 6
_DECIMAL = re.compile(rb"[0-9]{16,}")
_ZEROS = re.compile(rb"\x00{16,}")


@dataclass
class Oracle:
    """What is suspected, what is known anyway, and where something confirmed it."""

    #: Texts (numbers, names, references) and whole files.
    suspects: dict[str, str | bytes] = field(repr=False)
    #: What rows say in clear and could be hashed along: ids, regions, kinds, sizes, types.
    known: Sequence[str] = ()
    #: Whole messages, such as an older version of the vault has hashed.
    messages: dict[str, bytes] = field(default_factory=dict, repr=False)
    #: Which suspect was found where.
    found: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        """Make everything that is looked for."""
        #: The SHA-256 of every place, and of what was looked at there.
        self._looked_at = set[bytes]()
        self._windows: dict[int, str] = {}
        self._clear: dict[int, set[tuple[bytes, str]]] = defaultdict(set)
        for name, suspect in self.suspects.items():
            self._suspect(name, suspect)
        texts = {name: text for name, text in self.suspects.items() if isinstance(text, str)}
        for name, suspect in self.suspects.items():
            if isinstance(suspect, bytes):
                texts |= {name: hashlib.sha256(suspect).hexdigest()}
                texts |= {f"{name} ": str(hashlib.sha256(suspect).digest())}
        for name, message in _together(texts, self.known):
            self._hash(name.strip(), message, _COMMON)
        for name, message in self.messages.items():
            self._hash(name, message, _ALL)
        self._numbers = self._windows.keys() | self._clear.keys()

    def _suspect(self, name: str, suspect: str | bytes) -> None:
        if isinstance(suspect, bytes):
            middle = len(suspect) // 2
            for at in (0, middle, len(suspect) - PIECE_BYTES):
                # A file's first bytes are like any other's.
                if at >= PIECE_BYTES:
                    self._look_for_clear(name, suspect[at : at + PIECE_BYTES])
        for form in _forms(suspect):
            if isinstance(suspect, str) and len(form) >= CLEAR_BYTES_MIN:
                self._look_for_clear(name, form)
            self._hash(name, form, _ALL)
            for key in (b"", *(text.encode() for text in self.known)):
                for algorithm in _COMMON:
                    self._look_for(name, hmac.digest(key, form, algorithm))
            for space in _NAMESPACES:
                text = form.decode("latin-1")
                self._look_for(name, uuid.uuid3(space, text).bytes)
                self._look_for(name, uuid.uuid5(space, text).bytes)

    def _hash(self, name: str, message: bytes, algorithms: Sequence[str]) -> None:
        for algorithm in algorithms:
            digest = hashlib.new(algorithm, message, usedforsecurity=False).digest()
            self._look_for(name, digest)
            again = hashlib.new(algorithm, digest, usedforsecurity=False).digest()
            self._look_for(name, again)

    def _look_for_clear(self, name: str, form: bytes) -> None:
        self._clear[_number(form[:WINDOW])].add((form, name))

    def _look_for(self, name: str, digest: bytes) -> None:
        self._windows[_number(digest[:WINDOW])] = name
        self._windows[_number(digest[-WINDOW:])] = name
        if len(digest) >= _UUID_BYTES:
            for version in (3, 4, 5, 8):
                made = bytearray(digest[:WINDOW])
                made[_VERSION_AT] = version << 4 | made[_VERSION_AT] & 0xF
                self._windows[_number(made)] = name

    @property
    def guesses(self) -> int:
        """How many beginnings and ends of digests, and pieces of clear text, it looks for."""
        return len(self._numbers)

    async def take_database(self, dsn: str, at: str = "") -> list[str]:
        """Look at every column of every table but the system's; returns their names."""
        conn = await asyncpg.connect(dsn)
        looked = []
        try:
            tables = await conn.fetch(
                "select table_schema, table_name from information_schema.tables where table_schema"
                " not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'"
            )
            for schema, table in tables:
                columns = await conn.fetch(
                    "select column_name from information_schema.columns"
                    " where table_schema = $1 and table_name = $2",
                    schema,
                    table,
                )
                for (column,) in columns:
                    looked.append(f"{table}.{column}")
                    out = io.BytesIO()
                    await conn.copy_from_table(
                        table, schema_name=schema, columns=[column], output=out
                    )
                    self.look(f"column {table}.{column}{at}", out.getvalue())
        finally:
            await conn.close()
        return looked

    def take_files(self, what: str, directory: Path) -> int:
        """Look at every file below a directory, and at its name; returns how many there are."""
        count = 0
        for path in directory.rglob("*"):
            if path.is_file():
                count += 1
                self.look(f"{what} name", str(path.relative_to(directory)).encode())
                self.look(what, path.read_bytes())
        return count

    def look(self, where: str, data: bytes) -> None:
        """Look at bytes, and at what they are the hexadecimal, base64 or decimal form of."""
        for part in _ZEROS.split(data):
            # Recovered states and full pages in the WAL repeat each other.
            known = hashlib.sha256(where.encode() + b"\0" + part).digest()
            if known in self._looked_at:
                continue
            self._looked_at.add(known)
            self._look_at(where, part)
            for match in _HEX.finditer(part):
                text = match.group()
                for start in (0, 1):
                    even = text[start : len(text) - (len(text) - start) % 2]
                    self._look_at(where, binascii.unhexlify(even))
            for match in _UUID.finditer(part):
                self._look_at(where, binascii.unhexlify(match.group().replace(b"-", b"")))
            for match in _DECIMAL.finditer(part):
                number = int(match.group())
                size = (number.bit_length() + 7) // 8
                self._look_at(where, number.to_bytes(size))
                self._look_at(where, number.to_bytes(size, "little"))
            for match in _ENCODED.finditer(part):
                text = match.group().translate(bytes.maketrans(b"-_", b"+/"))
                for start in range(4):
                    whole = text[start : len(text) - ((len(text) - start) % 4 == 1)]
                    self._look_at(where, base64.b64decode(whole + b"=" * (-len(whole) % 4)))

    def _look_at(self, where: str, data: bytes) -> None:
        # Eight bytes at each place, as numbers: nothing faster is at hand.
        for start in range(min(WINDOW, len(data))):
            end = len(data) - (len(data) - start) % WINDOW
            numbers = memoryview(data)[start:end].cast("Q")
            if not self._numbers.isdisjoint(numbers):
                for number in self._numbers.intersection(numbers):
                    if number in self._windows:
                        self.found[self._windows[number]].add(where)
                    for form, name in self._clear.get(number, ()):
                        if form in data:
                            self.found[name].add(where)


def _number(window: bytes | bytearray) -> int:
    return int.from_bytes(window, sys.byteorder)


def _forms(suspect: str | bytes) -> Iterator[bytes]:
    """Yield the ways in which one value may be written before it is hashed."""
    if isinstance(suspect, bytes):
        yield from (suspect, base64.b64encode(suspect), suspect.hex().encode())
        return
    texts = {suspect, suspect.lower(), suspect.upper(), suspect.strip()}
    if suspect.startswith("+"):
        digits = suspect[1:]
        texts |= {digits, "00" + digits, "tel:" + suspect, f"{digits[:2]}-{digits[2:]}"}
        # The number as it is dialled in its country, whose code has one to three digits.
        texts |= {prefix + digits[n:] for n in (1, 2, 3) for prefix in ("", "0")}
    for text in sorted(texts):
        for form in (text, text + "\n", text + "\0", json.dumps(text), json.dumps([text])):
            yield form.encode()
        yield repr(text).encode()
        yield repr((text,)).encode()
        yield text.encode("utf-16-le")
        yield text.encode("utf-16-be")


def _together(texts: dict[str, str], known: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield what several values, one of them a suspect, may be written as before hashing."""
    for (name, text), other in itertools.product(texts.items(), (*texts.values(), *known)):
        for pair in ((text, other), (other, text)):
            yield from ((name, separator.join(pair).encode()) for separator in _SEPARATORS)
            yield from ((name, form) for form in _lists(pair))
    for (name, text), (one, two) in itertools.product(
        texts.items(), itertools.permutations(known, 2)
    ):
        for three in ((one, two, text), (one, text, two), (text, one, two)):
            yield from ((name, separator.join(three).encode()) for separator in ("", ":", "|"))
            yield name, repr(three).encode()


def _lists(values: Sequence[str]) -> Iterator[bytes]:
    yield repr(tuple(values)).encode()
    yield repr(list(values)).encode()
    yield json.dumps(list(values)).encode()
    yield json.dumps(list(values), separators=(",", ":")).encode()
