"""Tiles: names, widths and bundles as C2SP tlog-tiles says."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.tiles import (
    BUNDLES,
    WIDTH,
    Tile,
    covering,
    cut,
    decode_entries,
    decode_hashes,
    encode_entries,
    encode_hashes,
)


@pytest.mark.parametrize(
    "tile, path",
    [
        (Tile(0, 0, 256), "tile/0/000"),
        (Tile(1, 0, 1), "tile/1/000.p/1"),
        (Tile(BUNDLES, 999, 256), "tile/entries/999"),
        (Tile(0, 1000, 256), "tile/0/x001/000"),
        (Tile(0, 1234067, 255), "tile/0/x001/x234/067.p/255"),
    ],
)
def test_a_tile_has_the_name_that_the_specification_gives(tile: Tile, path: str) -> None:
    """Indices stand in groups of three digits; a partial tile carries its width."""
    assert tile.path == path


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 65535, 65536, 65537, 70000])
def test_the_tiles_of_every_level_cover_the_log(size: int) -> None:
    """All entries of a level are in its tiles once, only the last of which may be partial."""
    for level in (BUNDLES, 0, 1, 2):
        tiles = list(covering(size, level))
        assert sum(tile.width for tile in tiles) == size >> (8 * max(level, 0))
        assert all(tile.width == WIDTH for tile in tiles[:-1])
        assert [tile.index for tile in tiles] == list(range(len(tiles)))


@given(st.lists(st.binary(max_size=300), max_size=WIDTH))
def test_bundles_come_back(entries: list[bytes]) -> None:
    """What was encoded is decoded."""
    assert decode_entries(encode_entries(entries)) == entries


@given(st.lists(st.binary(max_size=40), min_size=WIDTH, max_size=WIDTH), st.integers(1, WIDTH))
def test_a_whole_tile_is_cut_to_what_it_held_before(entries: list[bytes], width: int) -> None:
    """Whoever asks for a part that is gone gets the very same bytes."""
    hashes = [sha256(entry).digest() for entry in entries]
    bundle, tile = Tile(BUNDLES, 0, width), Tile(1, 7, width)
    assert cut(bundle, encode_entries(entries)) == encode_entries(entries[:width])
    assert cut(tile, encode_hashes(hashes)) == encode_hashes(hashes[:width])


def test_damaged_tiles_are_refused() -> None:
    """A tile that is cut, empty or too long is none."""
    good = encode_entries([b"one", b"two"])
    with pytest.raises(ValueError, match="cut"):
        decode_entries(good[:-1])
    with pytest.raises(ValueError, match="cut"):
        decode_entries(good + b"\x00")
    with pytest.raises(ValueError, match="too much"):
        decode_entries(encode_entries([b""] * WIDTH) + encode_entries([b""]))
    with pytest.raises(ValueError, match="too long"):
        encode_entries([bytes(65536)])
    for data in (b"", bytes(33), bytes(32 * 257)):
        with pytest.raises(ValueError, match="hashes"):
            decode_hashes(data)
    assert decode_hashes(encode_hashes([bytes(32)] * 3)) == [bytes(32)] * 3
