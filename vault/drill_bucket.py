"""
The lying bucket of the drill: who owns the bucket, and no key, tries to have a document shredded.

It adds segments of the mirror that say so, that lead in a circle, or that are no segments, and a
checkpoint of a log that is longer than any. As a control the same row is put in once more by
somebody who has the root's key: then it must work, or the lies would prove nothing.
"""

import json
import struct
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from keys.segment import Writer, mac_key

_TAG = 37
_NUMBER = 9_999_999_990


class LyingBucket:
    """What is added to a region's bucket against one document that lives."""

    def __init__(self, bucket: Path, victim: UUID) -> None:
        self._bucket, self._victim = bucket, victim
        self._newest = max((bucket / "keys").iterdir(), key=lambda path: path.name).read_bytes()

    def lie(self) -> set[str]:
        """Add what no key stands behind; returns the names of the segments."""
        circle = _name(0)
        lies = {
            circle: self._segment(_NUMBER, previous=circle) + _frame(b"E", bytes(32)),
            f"keys/{_NUMBER + 1:020d}-0badf00d": self._segment(_NUMBER + 1)
            + _frame(b"E", bytes(32)),
            f"keys/{_NUMBER + 2:020d}-0badf00d": self._newest,
            f"keys/{_NUMBER + 3:020d}-0badf00d": b"junk",
        }
        for name, data in lies.items():
            (self._bucket / name).write_bytes(data)
        (self._bucket / f"log/checkpoint-{_NUMBER:020d}").write_bytes(b"junk")
        (self._bucket / f"log/minimum-{_NUMBER:020d}").write_bytes(b"junk")
        return set(lies)

    def tell_with_key(self, root_key: bytes) -> None:
        """Add the row as somebody does who has the root's key."""
        newest = max((self._bucket / "keys").iterdir(), key=lambda path: path.name)
        self._newest = newest.read_bytes()
        number, writer = int(newest.name[:20]) + 1, Writer(mac_key(root_key))
        data = writer.add(self._segment(number)) + writer.finish()
        (self._bucket / f"keys/{number:020d}-0badf00d").write_bytes(data)

    def _segment(self, number: int, *, previous: str | None = None) -> bytes:
        """Return the newest segment with another number and a row that shreds the victim."""
        (length,) = struct.unpack_from(">I", self._newest, 1)
        header = json.loads(self._newest[5 : 5 + length])
        header["number"] = number
        if previous is not None:
            header.update(previous=previous, previous_digest=sha256(b"").hexdigest())
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        gone = struct.pack(">16sQ", self._victim.bytes, header["generation"])
        return _frame(b"H", text) + self._newest[5 + length : -_TAG] + _frame(b"X", gone)


def _name(more: int) -> str:
    return f"keys/{_NUMBER + more:020d}-0badf00d"


def _frame(letter: bytes, data: bytes) -> bytes:
    return struct.pack(">cI", letter, len(data)) + data
