"""The log's Merkle tree (RFC 6962 section 2, RFC 9162 section 2): roots, growth, and proofs."""

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The roots of the full subtrees of a log's prefix, largest first: what it takes to grow."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size, self.hashes = size, list(hashes)
        if len(self.hashes) != size.bit_count():
            raise ValueError("a compact range has one hash for each bit of its size")

    def append(self, leaf: bytes) -> None:
        """Add a leaf's hash."""
        rest = self.size
        self.size += 1
        while rest & 1:
            leaf = node_hash(self.hashes.pop(), leaf)
            rest >>= 1
        self.hashes.append(leaf)

    def root(self) -> bytes:
        """Return the root of the tree of `size` leaves."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def covers(whole: CompactRange, level: int, hashes: Sequence[bytes]) -> bool:
    """
    Whether these are the last roots of `256**level` leaves each that a tile of the log would hold.

    They must be as many as the tile has, and hash into the subtrees of the log's compact range.
    """
    if len(hashes) != (whole.size >> 8 * level) % 256:
        return False
    bits = [bit for bit in range(whole.size.bit_length()) if whole.size >> bit & 1]
    known, start = dict(zip(reversed(bits), whole.hashes, strict=True)), 0
    for bit in reversed(bits):
        if 8 * level <= bit < 8 * level + 8:
            end = start + (1 << bit - 8 * level)
            if root_of(hashes[start:end]) != known[bit]:
                return False
            start = end
    return True


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over the leaves' hashes."""
    grown = CompactRange()
    for leaf in leaves:
        grown.append(leaf)
    return grown.root()


def split(size: int) -> int:
    """Return where a tree divides: the largest power of two below `size`, which is 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the hashes beside the path from a leaf to the root, lowest first."""
    if not 0 <= index < len(leaves):
        raise ValueError("there is no such leaf")
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if index < middle:
        return [*inclusion_proof(index, leaves[:middle]), root_of(leaves[middle:])]
    return [*inclusion_proof(index - middle, leaves[middle:]), root_of(leaves[:middle])]


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root that a proof leads to; raises ValueError when its length is wrong."""
    if not 0 <= index < size:
        raise ValueError("there is no such leaf")
    if size == 1:
        if proof:
            raise ValueError("the proof is too long")
        return leaf
    if not proof:
        raise ValueError("the proof is too short")
    middle = split(size)
    if index < middle:
        return node_hash(root_from_inclusion(index, middle, leaf, proof[:-1]), proof[-1])
    below = root_from_inclusion(index - middle, size - middle, leaf, proof[:-1])
    return node_hash(proof[-1], below)


def consistency_proof(old_size: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the hashes that prove that the first `old_size` leaves are a prefix."""
    if not 0 < old_size <= len(leaves):
        raise ValueError("the earlier size is out of range")
    return _subproof(old_size, leaves, whole=True)


def _subproof(old_size: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root_of(leaves)]
    middle = split(len(leaves))
    if old_size <= middle:
        return [*_subproof(old_size, leaves[:middle], whole=whole), root_of(leaves[middle:])]
    return [
        *_subproof(old_size - middle, leaves[middle:], whole=False),
        root_of(leaves[:middle]),
    ]


def check_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that the smaller tree is a prefix of the larger (RFC 9162, 2.1.4.2)."""
    if not 0 < old_size <= new_size:
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    path = list(proof)
    if old_size.bit_count() == 1:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for item in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(item, old), node_hash(item, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, item)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root
