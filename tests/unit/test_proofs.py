"""Proofs from tiles: the same as from the records themselves, from a few tiles however long."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.domain.merkle import (
    check_consistency,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from_inclusion,
    root_of,
)
from vault.domain.tiles import (
    WIDTH,
    Run,
    Tile,
    consistency_runs,
    covering,
    decode_proof,
    encode_proof,
    inclusion_runs,
    join,
    parse_path,
    place_of,
    subtrees,
)

SIZE_MAX = 70_000
LEAVES = [leaf_hash(str(number).encode()) for number in range(SIZE_MAX)]
SIZES = st.one_of(st.integers(1, 600), st.sampled_from([65_535, 65_536, 65_537, SIZE_MAX]))


@functools.cache
def tiles_of(size: int) -> dict[Tile, list[bytes]]:
    """Return every tile of hashes of a log of the first records."""
    tiles, hashes, level = dict[Tile, list[bytes]](), LEAVES[:size], 0
    while hashes:
        fresh = []
        for tile in covering(size, level):
            tiles[tile] = hashes[tile.index * WIDTH :][: tile.width]
            if tile.width == WIDTH:
                fresh.append(root_of(tiles[tile]))
        hashes, level = fresh, level + 1
    return tiles


def hash_of(run: Run, size: int, tiles: dict[Tile, list[bytes]]) -> bytes:
    """Return the tree hash over a run of records, from tiles alone."""
    parts = []
    for subtree in subtrees(*run):
        tile, start, end = place_of(subtree, size)
        parts.append(root_of(tiles[tile][start:end]))
    return join(parts)


@settings(deadline=None, max_examples=40)
@given(SIZES, st.data())
def test_inclusion_from_tiles(size: int, data: st.DataObject) -> None:
    """Whatever record of whatever log: its proof leads to the root."""
    index, tiles = data.draw(st.integers(0, size - 1)), tiles_of(size)
    proof = [hash_of(run, size, tiles) for run in inclusion_runs(index, size)]
    root = root_of(LEAVES[:size])
    assert root_from_inclusion(index, size, LEAVES[index], proof) == root
    if size < 600:
        assert proof == inclusion_proof(index, LEAVES[:size])


@settings(deadline=None, max_examples=40)
@given(SIZES, st.data())
def test_consistency_from_tiles(size: int, data: st.DataObject) -> None:
    """Whatever earlier size of whatever log: it is proved to be a prefix."""
    old, tiles = data.draw(st.integers(1, size)), tiles_of(size)
    proof = [hash_of(run, size, tiles) for run in consistency_runs(old, size)]
    roots = root_of(LEAVES[:old]), root_of(LEAVES[:size])
    assert check_consistency(old, roots[0], size, roots[1], proof)
    if size < 600:
        assert proof == consistency_proof(old, LEAVES[:size])


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_run_is_made_of_full_subtrees(first: int, length: int) -> None:
    """They follow each other without a gap, each where a subtree of its size may stand."""
    at = first
    for height, index in subtrees(first, first + length):
        assert index << height == at
        at += 1 << height
    assert at == first + length


@given(st.integers(1, 10**12), st.data())
def test_a_proof_takes_few_tiles(size: int, data: st.DataObject) -> None:
    """Of a million million records, no proof needs more tiles than the tree has levels of each."""
    index = data.draw(st.integers(0, size - 1))
    runs = inclusion_runs(index, size) + consistency_runs(index + 1, size)
    assert len({place_of(tree, size)[0] for run in runs for tree in subtrees(*run)}) <= 25


@pytest.mark.parametrize("index, size", [(-1, 3), (3, 3), (0, 0)])
def test_what_is_not_there_has_no_proof(index: int, size: int) -> None:
    """Neither a record nor an earlier log that does not exist, nor a tile past the end."""
    with pytest.raises(ValueError, match="no such record"):
        inclusion_runs(index, size)
    with pytest.raises(ValueError, match="out of range"):
        consistency_runs(size + 1, size)
    with pytest.raises(ValueError, match="not that long"):
        place_of((1, 2), 5)


@given(
    st.integers(0, 10**12),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5),
    st.binary(max_size=20),
)
def test_a_proof_comes_back(index: int, proof: list[bytes], extra: bytes) -> None:
    """Written as C2SP tlog-proof, every part is read again."""
    text = encode_proof(index, proof, "a checkpoint\n", extra)
    assert decode_proof(text) == (index, proof, "a checkpoint\n", extra)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1\nindex 0",
        "c2sp.org/tlog-proof@v2\nindex 0\n\nx",
        "c2sp.org/tlog-proof@v1\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 01\n\nx",
        "c2sp.org/tlog-proof@v1\nindex -1\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 1\n!\n\nx",
        "c2sp.org/tlog-proof@v1\nextra \nindex 1\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 1\nextra AAAA\n\nx",
    ],
)
def test_other_texts_are_no_proof(text: str) -> None:
    """What is not written in the one form is refused."""
    with pytest.raises(ValueError):
        decode_proof(text)


@given(st.integers(-1, 63), st.integers(0, 10**15), st.integers(1, 256))
def test_a_path_names_its_tile(level: int, index: int, width: int) -> None:
    """Every tile is found again by its path."""
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/1000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/-1/000",
        "tile/entries/000/",
        "tile/0/../../checkpoint",
        "tile/0/٠٠٠",
        "checkpoint",
    ],
)
def test_other_paths_name_none(path: str) -> None:
    """A path that is written differently, or leads elsewhere, is no tile's."""
    with pytest.raises(ValueError):
        parse_path(path)
