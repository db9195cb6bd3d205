"""The log's Merkle tree against published vectors and RFC 6962's own definition."""

import contextlib
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from tests.tlog_client import check_consistency as rfc_consistency
from tests.tlog_client import check_inclusion as rfc_inclusion
from tests.tlog_client import mth
from vault.domain.merkle import (
    CompactRange,
    check_consistency,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from_inclusion,
    root_of,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())
INPUTS = [bytes.fromhex(item) for item in VECTORS["inputs"]]
LEAVES = [leaf_hash(item) for item in INPUTS]
ROOTS = [bytes.fromhex(item) for item in VECTORS["roots"]]
OTHER = leaf_hash(b"other")


def tree_hash(inputs: Sequence[bytes]) -> bytes:
    """Compute the root as section 2.1 of RFC 6962 defines it."""
    if len(inputs) < 2:
        return sha256(b"\x00" + inputs[0] if inputs else b"").digest()
    split = 1
    while split * 2 < len(inputs):
        split *= 2
    return sha256(b"\x01" + tree_hash(inputs[:split]) + tree_hash(inputs[split:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    """The roots are those that others compute, the empty log's too."""
    assert root_of(LEAVES[:size]) == ROOTS[size] == tree_hash(INPUTS[:size])


@pytest.mark.parametrize("vector", VECTORS["inclusion"])
def test_known_inclusion_proofs(vector) -> None:
    """The way from a leaf to the root is the published one."""
    index, size = vector["index"], vector["size"]
    proof = [bytes.fromhex(item) for item in vector["proof"]]
    assert inclusion_proof(index, LEAVES[:size]) == proof
    assert root_from_inclusion(index, size, LEAVES[index], proof) == ROOTS[size]


@pytest.mark.parametrize("vector", VECTORS["consistency"])
def test_known_consistency_proofs(vector) -> None:
    """That a smaller log is a prefix is proved by the published hashes."""
    old, new = vector["old"], vector["new"]
    proof = [bytes.fromhex(item) for item in vector["proof"]]
    assert consistency_proof(old, LEAVES[:new]) == proof
    assert check_consistency(old, ROOTS[old], new, ROOTS[new], proof)


@given(st.lists(st.binary(max_size=4), max_size=70), st.integers(0, 70))
def test_the_range_grows_as_the_definition_says(inputs: list[bytes], cut: int) -> None:
    """A range kept at any size and taken up again ends in the root of the definition."""
    cut = min(cut, len(inputs))
    before = CompactRange()
    for item in inputs[:cut]:
        before.append(leaf_hash(item))
    assert before.root() == tree_hash(inputs[:cut])
    after = CompactRange(before.size, before.hashes)
    for item in inputs[cut:]:
        after.append(leaf_hash(item))
    assert (after.size, after.root()) == (len(inputs), tree_hash(inputs))
    assert len(before.hashes) == cut.bit_count()


def theirs(inputs: Sequence[bytes]) -> InmemoryTree:
    """Return the tree as others compute it."""
    tree = InmemoryTree(algorithm="sha256")
    for item in inputs:
        tree.append_entry(item)
    return tree


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70, unique=True), st.data())
def test_others_compute_the_same(inputs: list[bytes], data: st.DataObject) -> None:
    """pymerkle, which knows nothing of us, has the same roots and the same ways to them."""
    size, tree, leaves = len(inputs), theirs(inputs), [leaf_hash(item) for item in inputs]
    assert tree.get_root() == root_of(leaves)
    index = data.draw(st.integers(0, size - 1))
    # It counts from one, and puts the leaf itself among the hashes.
    path = set(tree.prove_inclusion(index + 1, size).path)
    assert path == {leaves[index], *inclusion_proof(index, leaves)}
    old = data.draw(st.integers(1, size))
    before, proof = theirs(inputs[:old]).get_root(), consistency_proof(old, leaves)
    assert check_consistency(old, before, size, tree.get_root(), proof)


def test_a_range_has_one_hash_for_each_bit() -> None:
    """A kept range that lost a hash is refused."""
    with pytest.raises(ValueError, match="each bit"):
        CompactRange(3, [OTHER])


def spoiled(proof: list[bytes], data: st.DataObject) -> list[bytes]:
    """Return a proof with one thing wrong."""
    ways = [[*proof, OTHER], [OTHER, *proof]]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        ways += [proof[:-1], proof[1:], [*proof[:at], OTHER, *proof[at + 1 :]]]
    if len(set(proof)) > 1:
        ways.append(proof[::-1])
    return data.draw(st.sampled_from(ways))


@given(st.integers(1, 70), st.data())
def test_inclusion_holds_and_nothing_else_does(size: int, data: st.DataObject) -> None:
    """Every leaf can be proved where it is; another leaf, place or proof cannot."""
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    root = root_of(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, leaves)
    assert root_from_inclusion(index, size, leaves[index], proof) == root
    assert root_from_inclusion(index, size, OTHER, proof) != root
    elsewhere = data.draw(
        st.integers(0, size - 1).filter(lambda other: size == 1 or other != index)
    )
    for place, way in ((index, spoiled(proof, data)), (elsewhere, proof)):
        if (place, way) == (index, proof):
            continue
        with contextlib.suppress(ValueError):
            assert root_from_inclusion(place, size, leaves[index], way) != root


@given(st.integers(1, 70), st.data())
def test_consistency_holds_and_nothing_else_does(size: int, data: st.DataObject) -> None:
    """Every prefix can be proved; another root or proof cannot."""
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    root = root_of(leaves)
    old = data.draw(st.integers(1, size))
    proof = consistency_proof(old, leaves)
    old_root = root_of(leaves[:old])
    assert check_consistency(old, old_root, size, root, proof)
    assert not check_consistency(old, OTHER, size, root, proof)
    assert not check_consistency(old, old_root, size, OTHER, proof)
    assert not check_consistency(old, old_root, size, root, spoiled(proof, data))


@pytest.mark.parametrize("index, size", [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_proof_of_what_is_not_there(index: int, size: int) -> None:
    """A place outside the log is refused, by who proves and by who checks."""
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(index, LEAVES[:size])
    with pytest.raises(ValueError, match="no such leaf"):
        root_from_inclusion(index, size, OTHER, [])


@pytest.mark.parametrize("old, new", [(0, 3), (4, 3), (-1, 3)])
def test_no_consistency_with_what_was_no_log(old: int, new: int) -> None:
    """A smaller log has at least one leaf and is not the larger one."""
    with pytest.raises(ValueError, match="out of range"):
        consistency_proof(old, LEAVES[:new])
    assert not check_consistency(old, OTHER, new, ROOTS[new], [])


@given(st.integers(1, 200), st.data())
def test_others_accept_our_proofs(size: int, data: st.DataObject) -> None:
    """A verifier written from RFC 9162 alone takes them, and refuses them for another leaf."""
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    root, index = mth(leaves), data.draw(st.integers(0, size - 1))
    assert root_of(leaves) == root
    rfc_inclusion(index, size, leaves[index], inclusion_proof(index, leaves), root)
    with pytest.raises(AssertionError):
        rfc_inclusion(index, size, root + b"x", inclusion_proof(index, leaves), root)
    proof = consistency_proof(index + 1, leaves)
    rfc_consistency(index + 1, size, mth(leaves[: index + 1]), root, proof)
    with pytest.raises(AssertionError):
        rfc_consistency(index + 1, size, leaf_hash(b"x"), root, proof)
