"""The log's formats, fixed by vectors: what is written stays readable, what is wrong, wrong."""

import base64
import json
from pathlib import Path

import pytest

from tests.tlog_client import mth, open_checkpoint, open_cosignature, sha256
from vault.audit.auditor import Audit
from vault.domain.merkle import leaf_hash
from vault.domain.records import canonical_bytes, encode_receipt, parse, receipt_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "log.json").read_text("utf-8"))
RECORDS = [item["canonical"].encode() for item in VECTORS["records"]]
LEAVES = [base64.b64decode(item["leaf"]) for item in VECTORS["records"]]


def offended(export: str) -> dict[str, int]:
    """Return the first index at which each of the auditor's verdicts is offended."""
    audit = Audit(VECTORS["vkey"], witnesses=[VECTORS["witness"]])
    for line in export.encode().splitlines(keepends=True):
        audit.take(line)
    found: dict[str, int] = audit.verdict()["first_offending"]
    return found


def test_records_have_these_bytes_and_hashes() -> None:
    """Each is read, written the same, and hashed as the RFC says."""
    for data, leaf in zip(RECORDS, LEAVES, strict=True):
        assert canonical_bytes(parse(data)) == data
        assert leaf_hash(data) == sha256(b"\x00", data) == leaf


@pytest.mark.parametrize("text", VECTORS["no_records"])
def test_other_bytes_are_no_record(text: str) -> None:
    """White space, another version, needless escapes, shorter times, nulls and wrong types."""
    with pytest.raises(ValueError, match="record"):
        parse(text.encode())


def test_the_checkpoint_is_signed_and_cosigned() -> None:
    """By a client that knows the specifications alone: size, root, and when the witness saw it."""
    for note in (VECTORS["checkpoint"], VECTORS["cosigned"]):
        size, root = open_checkpoint(note, VECTORS["vkey"], "portvault/uk")
        assert (size, root) == (len(LEAVES), mth(LEAVES))
    assert base64.b64decode(VECTORS["root"]) == mth(LEAVES)
    seen = open_cosignature(VECTORS["cosigned"], VECTORS["witness"])
    assert seen == VECTORS["witnessed_at"]


def test_the_receipt_is_that_of_the_first_record() -> None:
    """It names the record, and the hash by which it stands in the log."""
    assert encode_receipt(receipt_of(parse(RECORDS[0]))) == VECTORS["receipt"]


def test_the_export_holds() -> None:
    """A stretch from the middle of the log, cosigned."""
    assert offended(VECTORS["export"]) == {}


@pytest.mark.parametrize("vector", VECTORS["bad_exports"], ids=lambda vector: vector["what"])
def test_a_spoiled_export_does_not(vector) -> None:
    """Each is convicted, at the very index."""
    assert vector["first_offending"]
    assert offended(vector["export"]) == vector["first_offending"]
