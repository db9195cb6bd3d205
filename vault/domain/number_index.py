"""
The keyed index of telephone numbers and references: which orders have one, for who has the key.

Without it nobody can tell from the rows which number an order moves, nor, once the key is gone,
from the rows of an old backup.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from keys.stream import DataKey
from vault.domain.orders import Details

_PURPOSE = "number-index"
_REFERENCE_PURPOSE = "reference-index"
_VERSION = 8


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """What stands in the index for a number of an order, or for its reference."""

    mac: bytes
    reference: bool = False


def macs(key: DataKey, numbers: Iterable[str]) -> list[bytes]:
    """Return what stands in the index for E.164 numbers."""
    return [key.mac(number.encode(), _PURPOSE) for number in numbers]


def reference_mac(key: DataKey, reference: str) -> bytes:
    """Return what stands in the index for a customer's own reference, to the letter."""
    return key.mac(reference.encode(), _REFERENCE_PURPOSE)


def marks_of(key: DataKey, details: Details) -> list[Mark]:
    """Return all that an order is found by."""
    marks = [Mark(mac) for mac in macs(key, details.numbers)]
    if details.customer_reference is not None:
        marks.append(Mark(reference_mac(key, details.customer_reference), reference=True))
    return marks


def index_key_id(identity: UUID) -> UUID:
    """Return an id of version 8: so a restore tells the key from one whose document is lost."""
    return UUID(int=identity.int & ~(0xF << 76) | _VERSION << 76)
