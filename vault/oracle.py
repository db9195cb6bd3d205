"""
The adversary that guesses: it knows candidates, and looks whether anything stored confirms one.

It has a few telephone numbers, names, references and files that may have been in the vault, hashes
each in every plausible way, alone and together with what the rows say in clear, and compares with
everything that was stored: each column of each table, objects and their names, log lines, WAL.
Hashes with a key that is no secret count as hashes without one. It shares no line with the vault.
"""

import base64
import binascii
import hashlib
import hmac
import io
import itertools
import json
import re
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

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
