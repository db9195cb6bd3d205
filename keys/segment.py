"""
Segments of the mirror: rows of a key tree as bytes, and the check that every one of them opens.

A segment is a run of frames: a letter, the length of what follows (4 bytes, big-endian), and that.
`H` comes first and says what the segment is, `E` last and authenticates all before it under the
root key of the segment's generation. Between them a tree comes from the root down: nodes above the
leaves, level by level; then each leaf followed by its scopes, each scope by its data keys. All keys
in it are wrapped as in the database. The format stands in docs/formats.md.
"""

import base64
import hmac
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from keys import wrap
from keys.errors import IntegrityError
from keys.tree import FULL, Node, Scope, WrappedKey

#: No frame is longer; what says it is, is damaged.
FRAME_BYTES_MAX = 64 * 1024
_FRAME = struct.Struct(">cI")
_NODE = struct.Struct(">QBQQBQ")
_SCOPE = struct.Struct(">16sQQB")
_KEY = struct.Struct(">16s16sQ")
_GONE = struct.Struct(">16sQ")
_SLOTS = struct.Struct(f"{wrap.KEY_BYTES}s" * wrap.SLOTS)
_NO_SLOT = 0xFF
_MAC_PURPOSE = "mirror"


@dataclass(frozen=True, slots=True)
class Header:
    """The head of the tree at a segment's moment, and the segment before, unless this is a base."""

    region: str
    number: int
    generation: int
    root: int
    revision: int
    root_wrap: bytes = field(repr=False)
    previous: str | None = None
    previous_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation as its row says; times are RFC 3339."""

    generation: int
    state: str
    canary: bytes | None = field(repr=False)
    active_at: str | None
    destroyed_at: str | None


@dataclass(frozen=True, slots=True)
class Gone:
    """A data key that left the tree under a generation."""

    id: UUID
    generation: int


Row = Generation | Gone | Node | Scope | WrappedKey


def mac_key(root_key: bytes) -> bytes:
    """Return the key that authenticates a segment."""
    return wrap.derive(root_key, _MAC_PURPOSE)


def encode_header(header: Header) -> bytes:
    """Return the first frame."""
    value = {
        "v": 1,
        "region": header.region,
        "number": header.number,
        "generation": header.generation,
        "root": header.root,
        "revision": header.revision,
        "root_wrap": base64.b64encode(header.root_wrap).decode(),
        "previous": header.previous,
        "previous_digest": header.previous_digest.hex() if header.previous_digest else None,
    }
    return _frame(b"H", json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def decode_header(data: bytes) -> Header:
    """Return what `encode_header` was given."""
    try:
        value = json.loads(data)
        if value.pop("v") != 1:
            raise IntegrityError("this segment is of a later format")
        digest = value.pop("previous_digest")
        header = Header(
            **{**value, "root_wrap": base64.b64decode(value["root_wrap"], validate=True)},
            previous_digest=bytes.fromhex(digest) if digest else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise IntegrityError from None
    if encode_header(header) != _frame(b"H", data):
        raise IntegrityError
    return header


def encode_row(row: Row) -> bytes:
    """Return a row's frame."""
    match row:
        case Node():
            head = _NODE.pack(
                row.id,
                row.level,
                row.epoch,
                row.parent or 0,
                _NO_SLOT if row.slot is None else row.slot,
                row.used,
            )
            return _frame(b"N", head + row.page)
        case Scope():
            return _frame(b"S", _SCOPE.pack(row.id.bytes, row.epoch, row.node, row.slot))
        case WrappedKey():
            head = _KEY.pack(row.id.bytes, row.scope.bytes, row.scope_epoch)
            return _frame(b"K", head + row.wrap)
        case Gone():
            return _frame(b"X", _GONE.pack(row.id.bytes, row.generation))
        case Generation():
            value = {
                "generation": row.generation,
                "state": row.state,
                "canary": base64.b64encode(row.canary).decode() if row.canary else None,
                "active_at": row.active_at,
                "destroyed_at": row.destroyed_at,
            }
            return _frame(b"G", json.dumps(value, sort_keys=True).encode())


def decode_row(region: str, kind: bytes, data: bytes) -> Row:
    """Return what `encode_row` was given; raises `IntegrityError` for anything else."""
    try:
        return _decode_row(region, kind, data)
    except (struct.error, ValueError, TypeError, KeyError):
        raise IntegrityError from None


def _decode_row(region: str, kind: bytes, data: bytes) -> Row:
    match kind:
        case b"N":
            number, level, epoch, parent, slot, used = _NODE.unpack_from(data)
            above = None if slot == _NO_SLOT else parent
            place = None if slot == _NO_SLOT else slot
            return Node(number, level, epoch, above, place, used, data[_NODE.size :])
        case b"S":
            identity, epoch, node, slot = _SCOPE.unpack(data)
            return Scope(UUID(bytes=identity), epoch, node, slot)
        case b"K":
            identity, scope, epoch = _KEY.unpack_from(data)
            wrapped = data[_KEY.size :]
            return WrappedKey(UUID(bytes=identity), region, UUID(bytes=scope), epoch, wrapped)
        case b"X":
            identity, generation = _GONE.unpack(data)
            return Gone(UUID(bytes=identity), generation)
        case b"G":
            value = json.loads(data)
            canary = base64.b64decode(value["canary"]) if value["canary"] else None
            return Generation(**{**value, "canary": canary})
    raise IntegrityError


class Writer:
    """Frames a segment; `digest` and `size_bytes` hold once `finish` was called."""

    def __init__(self, key: bytes) -> None:
        self._hash, self._key = sha256(), key
        self.size_bytes = 0

    def add(self, frames: bytes) -> bytes:
        """Take note of frames and return them."""
        self._hash.update(frames)
        self.size_bytes += len(frames)
        return frames

    def finish(self) -> bytes:
        """Return the last frame."""
        tag = hmac.digest(self._key, self._hash.digest(), "sha256")
        return self.add(_frame(b"E", tag))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole segment."""
        return self._hash.digest()


class Reader:
    """
    Takes a segment apart as its bytes come; the caller asks `close` whether it was whole.

    What it yields is authentic only once `close` has returned.
    """

    def __init__(self) -> None:
        self._hash, self._waiting = sha256(), b""
        self._before_end: bytes | None = None
        self._tag = b""
        self.size_bytes = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield letter and content of every frame but the last."""
        self.size_bytes += len(data)
        data = self._waiting + data if self._waiting else data
        start = 0
        while len(data) - start >= _FRAME.size:
            kind, length = _FRAME.unpack_from(data, start)
            if length > FRAME_BYTES_MAX or self._before_end is not None:
                raise IntegrityError
            end = start + _FRAME.size + length
            if len(data) < end:
                break
            body = data[start + _FRAME.size : end]
            if kind == b"E":
                self._before_end, self._tag = self._hash.digest(), body
            self._hash.update(data[start:end])
            start = end
            if kind != b"E":
                yield kind, body
        self._waiting = data[start:]

    def close(self, *, key: bytes | None = None, digest: bytes | None = None) -> bytes:
        """Return the digest; raises `IntegrityError` unless it, or the tag under `key`, holds."""
        if self._waiting or self._before_end is None:
            raise IntegrityError
        if digest is not None and not hmac.compare_digest(digest, self._hash.digest()):
            raise IntegrityError
        if key is not None:
            tag = hmac.digest(key, self._before_end, "sha256")
            if not hmac.compare_digest(tag, self._tag):
                raise IntegrityError
        return self._hash.digest()


class Opener:
    """Opens every key of a tree whose rows come from the root down; raises `IntegrityError`."""

    def __init__(self, region: str, root: int, root_key: bytes) -> None:
        self._region, self._root, self._root_key = region, root, root_key
        self._pages: dict[int, bytearray] = {}
        self._leaf: tuple[int, bytearray] | None = None
        self._scope: tuple[Scope, bytes] | None = None
        self.opened = 0

    def open(self, row: Row) -> None:
        """Open what a row holds under what came before it."""
        match row:
            case Node():
                self._open_node(row)
            case Scope():
                if self._leaf is None or self._leaf[0] != row.node:
                    raise IntegrityError
                self._scope = row, wrap.child_key(self._leaf[1], row.slot)
            case WrappedKey():
                if self._scope is None or self._scope[0].id != row.scope:
                    raise IntegrityError
                scope, key = self._scope
                context = wrap.data_key_context(self._region, scope.id, scope.epoch, row.id)
                wrap.unwrap(key, row.wrap, context)
            case _:
                return
        self.opened += 1

    def _open_node(self, node: Node) -> None:
        key = self._root_key
        if node.id != self._root:
            if node.parent not in self._pages or node.slot is None:
                raise IntegrityError
            key = wrap.child_key(self._pages[node.parent], node.slot)
        context = wrap.page_context(self._region, node.id, node.epoch)
        page = wrap.decrypt_page(key, node.page, context)
        check_used(page, node.used)
        if node.level == 0:
            self._leaf, self._scope = (node.id, page), None
        else:
            self._pages[node.id] = page


def check_used(page: bytes | bytearray, used: int) -> None:
    """Raise unless exactly the slots in `used` hold a key; most pages are full."""
    keys = _SLOTS.unpack(page)
    unused = [slot for slot in range(wrap.SLOTS) if not used >> slot & 1] if used != FULL else []
    if keys.count(wrap.EMPTY) != len(unused) or any(keys[slot] != wrap.EMPTY for slot in unused):
        raise IntegrityError


def _frame(kind: bytes, data: bytes) -> bytes:
    if len(data) > FRAME_BYTES_MAX:
        raise IntegrityError
    return _FRAME.pack(kind, len(data)) + data
