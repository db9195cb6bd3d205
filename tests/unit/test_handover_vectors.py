"""Handovers and revocations, fixed by vectors: whose signature counts, for two readers alike."""

import json
from pathlib import Path

import pytest

from keys.errors import IntegrityError
from keys.notes.signing import trust
from vault.audit.auditor import Trust

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "handovers.json").read_text("utf-8"))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["what"])
def test_the_vaults_reading(case) -> None:
    """Each checkpoint counts, or does not, as it is written down."""
    found = trust(case["key"], case["notes"])
    assert found.revoked == case["revoked"]
    for row in case["checkpoints"]:
        if row["counts"]:
            assert found.verify(row["checkpoint"])
            continue
        with pytest.raises(IntegrityError):
            found.verify(row["checkpoint"])


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["what"])
def test_the_auditors_reading(case) -> None:
    """Written apart, it says the same."""
    found = Trust(case["key"], case["notes"])
    assert found.revoked == case["revoked"]
    for row in case["checkpoints"]:
        verified = found.verified(row["checkpoint"])
        assert row["counts"] == bool(verified and verified[1])
