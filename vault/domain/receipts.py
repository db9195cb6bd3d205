"""
Receipts: what a reader of content is given, to convict a log that forgets the reading.

A dictionary of structured fields (RFC 8941): the record's id, and the hash by which it stands in
the log. The record has no place yet when content goes out; a proof can be asked for by its id about
a second later, and leads from this hash to a signed checkpoint, or the log has forgotten it.
"""

import base64
import re
from dataclasses import dataclass
from uuid import UUID

from vault.domain.merkle import HASH_BYTES, leaf_hash
from vault.domain.records import Record, canonical_bytes

HEADER = "Access-Receipt"
_FORM = re.compile(r'region="([a-z]+)", record="([0-9a-f-]{36})", leaf=:([A-Za-z0-9+/=]+):')


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which record of which log, and its leaf hash."""

    region: str
    record: UUID
    leaf: bytes


def receipt_of(record: Record) -> Receipt:
    """Return the receipt of a record."""
    return Receipt(record.region, record.id, leaf_hash(canonical_bytes(record)))


def encode_receipt(receipt: Receipt) -> str:
    """Return the value of the header."""
    leaf = base64.b64encode(receipt.leaf).decode()
    return f'region="{receipt.region}", record="{receipt.record}", leaf=:{leaf}:'


def parse_receipt(text: str) -> Receipt:
    """Return what `encode_receipt` was given; raises ValueError for any other text."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a receipt")
    region, record, leaf = match.groups()
    receipt = Receipt(region, UUID(record), base64.b64decode(leaf, validate=True))
    if len(receipt.leaf) != HASH_BYTES:
        raise ValueError("not a receipt")
    return receipt
