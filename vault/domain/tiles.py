"""
Tiles: a log as immutable files of 256 hashes or entries each (C2SP tlog-tiles, tile height 8).

A tile of level L holds hashes of full subtrees of 256**L records, an entry bundle the records
themselves, each behind its length in two bytes, big-endian. The last tile of a level may be
partial; its width stands in its name.
"""

import base64
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vault.domain.checkpoint import Opener, open_checkpoint
from vault.domain.merkle import HASH_BYTES, node_hash, root_from_inclusion, split

WIDTH = 256
#: The level of entry bundles.
BUNDLES = -1
ENTRY_BYTES_MAX = 0xFFFF
LEVEL_MAX = 63
_LENGTH = struct.Struct(">H")
# More digits than a count of records can have are no index.
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Tile:
    """Where a tile stands; bundles of entries have the level `BUNDLES`."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        """Its path below the log's address."""
        level = "entries" if self.level == BUNDLES else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{_number(self.index)}{partial}"


def parse_path(path: str) -> Tile:
    """Return the tile that stands at a path; raises ValueError when none can."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError("no tile has this path")
    level, number, width = match.groups()
    index = int(number.replace("/", "").replace("x", ""))
    tile = Tile(BUNDLES if level == "entries" else int(level), index, int(width or WIDTH))
    if tile.path != path or tile.level > LEVEL_MAX or not 0 < tile.width <= WIDTH:
        raise ValueError("no tile has this path")
    return tile


def _number(index: int) -> str:
    """Return an index in groups of three digits, all but the last behind an x."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def partials(level: int, index: int) -> str:
    """Return the path below which the partial tiles of an index lie."""
    return Tile(level, index, WIDTH).path + ".p/"


def covering(size: int, level: int = BUNDLES, first: int = 0) -> Iterator[Tile]:
    """Yield the tiles of a level that hold a log of `size`, from the one with entry `first` on."""
    below = size >> (8 * max(level, 0))
    for index in range(first // WIDTH, -(-below // WIDTH)):
        yield Tile(level, index, min(WIDTH, below - index * WIDTH))


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """Return a tile of hashes."""
    return b"".join(hashes)


def decode_hashes(data: bytes) -> list[bytes]:
    """Return the hashes of a tile; raises ValueError when its length is wrong."""
    if not data or len(data) % HASH_BYTES or len(data) > WIDTH * HASH_BYTES:
        raise ValueError("not a tile of hashes")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """Return a bundle of entries."""
    framed = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise ValueError("an entry is too long for a bundle")
        framed += [_LENGTH.pack(len(entry)), entry]
    return b"".join(framed)


def decode_entries(data: bytes) -> list[bytes]:
    """Return the entries of a bundle; raises ValueError when it is cut or too long."""
    entries, at = list[bytes](), 0
    while at < len(data):
        if len(data) - at < _LENGTH.size:
            raise ValueError("the bundle is cut")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        entry = data[at : at + length]
        if len(entry) < length or len(entries) == WIDTH:
            raise ValueError("the bundle is cut, or holds too much")
        entries.append(entry)
        at += length
    return entries


def cut(tile: Tile, whole: bytes) -> bytes:
    """Return what a partial tile held, from the whole one; raises ValueError when that is none."""
    if tile.level == BUNDLES:
        return encode_entries(decode_entries(whole)[: tile.width])
    return encode_hashes(decode_hashes(whole)[: tile.width])


# ---- Proofs about a log, as what of its tiles has to be read for them (RFC 6962, 2.1.1 and
# 2.1.2).
#
# A proof is a list of tree hashes, each over a run of records. A run falls into full subtrees, and
# each of these is hashed from neighbours in one tile. So a proof takes a few tiles, however long
# the log is.

#: The records from the first of these up to, and without, the second.
Run = tuple[int, int]
#: A full subtree: the binary logarithm of its size, and its place among those of that size.
Subtree = tuple[int, int]

TITLE = "c2sp.org/tlog-proof@v1"
_TILE_HEIGHT = 8


def inclusion_runs(index: int, size: int) -> list[Run]:
    """Return over which records the hashes of an inclusion proof are, lowest first."""
    if not 0 <= index < size:
        raise ValueError("there is no such record")
    first, last, runs = 0, size, list[Run]()
    while last - first > 1:
        middle = first + split(last - first)
        if index < middle:
            runs.append((middle, last))
            last = middle
        else:
            runs.append((first, middle))
            first = middle
    return runs[::-1]


def consistency_runs(old_size: int, size: int) -> list[Run]:
    """Return over which records the hashes of a consistency proof are, in its order."""
    if not 0 < old_size <= size:
        raise ValueError("the earlier size is out of range")
    first, last, runs, whole = 0, size, list[Run](), True
    while old_size != last:
        middle = first + split(last - first)
        if old_size <= middle:
            runs.append((middle, last))
            last = middle
        else:
            runs.append((first, middle))
            first, whole = middle, False
    if not whole:
        runs.append((first, last))
    return runs[::-1]


def subtrees(first: int, last: int) -> Iterator[Subtree]:
    """Yield the largest full subtrees that a run consists of, from left to right."""
    while first < last:
        height = (last - first).bit_length() - 1
        if first:
            height = min(height, (first & -first).bit_length() - 1)
        yield height, first >> height
        first += 1 << height


def place_of(subtree: Subtree, size: int) -> tuple[Tile, int, int]:
    """Return the tile of a log of `size` that a subtree is hashed from, and its place there."""
    height, index = subtree
    level, inner = divmod(height, _TILE_HEIGHT)
    first = index << inner
    tile, start = divmod(first, WIDTH)
    width = min(WIDTH, (size >> (_TILE_HEIGHT * level)) - tile * WIDTH)
    if start + (1 << inner) > width:
        raise ValueError("the log is not that long")
    return Tile(level, tile, width), start, start + (1 << inner)


def join(hashes: Sequence[bytes]) -> bytes:
    """Return the hash of a run from those of its subtrees."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def encode_proof(index: int, proof: Sequence[bytes], note: str, extra: bytes = b"") -> str:
    """Return an inclusion proof that stands for itself (C2SP tlog-proof)."""
    lines = [TITLE]
    if extra:
        lines.append(f"extra {_text(extra)}")
    lines += [f"index {index}", *map(_text, proof)]
    return "\n".join(lines) + f"\n\n{note}"


def decode_proof(text: str) -> tuple[int, list[bytes], str, bytes]:
    """Return index, hashes, checkpoint and extra data; raises ValueError for any other text."""
    head, found, note = text.partition("\n\n")
    title, *lines = head.split("\n")
    if title != TITLE or not found:
        raise ValueError("not a proof")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = base64.b64decode(lines.pop(0).removeprefix("extra "), validate=True)
    if not lines or not lines[0].startswith("index "):
        raise ValueError("not a proof")
    number = lines.pop(0).removeprefix("index ")
    proof = [base64.b64decode(line, validate=True) for line in lines]
    if not number.isascii() or not number.isdigit() or any(len(item) != 32 for item in proof):
        raise ValueError("not a proof")
    if encode_proof(int(number), proof, note, extra) != text:
        raise ValueError("not a proof in its one form")
    return int(number), proof, note, extra


def check_proof(text: str, leaf: bytes, opener: Opener, region: str) -> tuple[int, int]:
    """
    Return at which index of a log of which size a leaf is proved to stand.

    Raises ValueError, or `IntegrityError` when nobody who is trusted signed the checkpoint.
    """
    index, proof, note, _ = decode_proof(text)
    checkpoint = open_checkpoint(note, opener, region)
    if root_from_inclusion(index, checkpoint.size, leaf, proof) != checkpoint.root:
        raise ValueError("the proof does not lead to the checkpoint")
    return index, checkpoint.size


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
