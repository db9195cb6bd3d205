"""
Tiles: a log as immutable files of 256 hashes or entries each (C2SP tlog-tiles, tile height 8).

A tile of level L holds hashes of full subtrees of 256**L records, an entry bundle the records
themselves, each behind its length in two bytes, big-endian. The last tile of a level may be
partial; its width stands in its name.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vault.domain.merkle import HASH_BYTES

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
