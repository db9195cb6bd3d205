"""A segment's frames: what fits into one, and what does not."""

from uuid import UUID

import pytest

from keys.errors import IntegrityError
from keys.segment import FRAME_BYTES_MAX, Reader, Writer, decode_row, encode_row
from keys.tree import WrappedKey

#: What a data key's frame holds beside the wrap.
OTHER_BYTES = 40


def key(size: int) -> WrappedKey:
    """Return a data key whose wrap has so many bytes."""
    return WrappedKey(UUID(int=1), "uk", UUID(int=2), 3, bytes(size))


def test_the_longest_frame_is_read_again() -> None:
    """What is written at the limit is understood."""
    row, writer, reader = key(FRAME_BYTES_MAX - OTHER_BYTES), Writer(bytes(32)), Reader()
    data = writer.add(encode_row(row)) + writer.finish()
    ((kind, body),) = reader.feed(data)
    assert len(body) == FRAME_BYTES_MAX
    assert decode_row("uk", kind, body) == row
    assert reader.close(digest=writer.digest, key=bytes(32)) == writer.digest


def test_a_longer_frame_is_not_written() -> None:
    """What no reader would take never gets into a bucket."""
    with pytest.raises(IntegrityError):
        encode_row(key(FRAME_BYTES_MAX - OTHER_BYTES + 1))
