"""The log's Merkle tree against known roots, and its proofs against altered ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.merkle import (
    EMPTY_ROOT,
    check_consistency,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from_inclusion,
    root_of,
)

# The inputs and roots that Certificate Transparency's own tests use.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
LEAVES = [leaf_hash(bytes.fromhex(item)) for item in INPUTS]


@pytest.mark.parametrize(
    "size, root",
    [
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    ],
)
def test_known_roots(size: int, root: str) -> None:
    """The roots are those that others compute."""
    assert root_of(LEAVES[:size]).hex() == root


def test_the_empty_log() -> None:
    """A log without records has the hash of nothing."""
    assert root_of([]) == EMPTY_ROOT


@given(st.integers(1, 40), st.data())
def test_proofs_hold_and_altered_ones_do_not(size: int, data: st.DataObject) -> None:
    """Every leaf and every prefix can be proved, and nothing else."""
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    root = root_of(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, leaves)
    assert root_from_inclusion(index, size, leaves[index], proof) == root
    assert root_from_inclusion(index, size, leaf_hash(b"other"), proof) != root
    old = data.draw(st.integers(1, size))
    proof = consistency_proof(old, leaves)
    assert check_consistency(old, root_of(leaves[:old]), size, root, proof)
    assert not check_consistency(old, leaf_hash(b"other"), size, root, proof)
    assert not check_consistency(old, root_of(leaves[:old]), size, root, [*proof, root])
