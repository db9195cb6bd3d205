"""
The keyed index of telephone numbers: which orders move a number, for who has the key.

Without it nobody can tell from the rows which number an order moves, nor, once the key is gone,
from the rows of an old backup.
"""

from collections.abc import Iterable
from uuid import UUID

from keys.stream import DataKey

_PURPOSE = "number-index"
_VERSION = 8


def macs(key: DataKey, numbers: Iterable[str]) -> list[bytes]:
    """Return what stands in the index for E.164 numbers."""
    return [key.mac(number.encode(), _PURPOSE) for number in numbers]


def index_key_id(identity: UUID) -> UUID:
    """Return an id of version 8: so a restore tells the key from one whose document is lost."""
    return UUID(int=identity.int & ~(0xF << 76) | _VERSION << 76)
