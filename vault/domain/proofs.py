"""
Proofs about a log, as what of its tiles has to be read for them (RFC 6962, 2.1.1 and 2.1.2).

A proof is a list of tree hashes, each over a run of records. A run falls into full subtrees, and
each of these is hashed from neighbours in one tile. So a proof takes a few tiles, however long the
log is.
"""

import base64
from collections.abc import Iterator, Sequence

from vault.domain.checkpoint import Opener, open_checkpoint
from vault.domain.merkle import node_hash, root_from_inclusion, split
from vault.domain.tiles import WIDTH, Tile

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
