"""Certificates hold offline with nothing but the public key; what was altered does not."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from vault.audit import auditor, certificate_auditor
from vault.audit.certificate_auditor import CertificateError, verify
from vault.domain.certificates import (
    ORDER_FORMAT,
    Issued,
    note_digest,
    order_certificate_text,
    parse_certificate,
)
from vault.domain.orders import Order, Status

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "certificates.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vectors(case: dict[str, str]) -> None:
    """Each vector holds, or fails for the reason that it names."""
    if "says" in case:
        with pytest.raises(CertificateError, match=case["says"]):
            verify(case["note"], case.get("key", VECTORS["key"]))
    else:
        fields = verify(case["note"], VECTORS["key"])
        assert "not_covered" in fields


def test_one_changed_letter_is_noticed() -> None:
    """Whatever letter of the signed text is another, the signature does not hold."""
    note = VECTORS["cases"][0]["note"]
    text = note[: note.rindex("\n\n")]
    for at in range(0, len(text), 37):
        changed = "x" if text[at] != "x" else "y"
        with pytest.raises(CertificateError):
            verify(note[:at] + changed + note[at + 1 :], VECTORS["key"])


def test_the_auditor_runs_as_two_files(tmp_path: Path) -> None:
    """Copied away from the vault it needs Python and `cryptography` only; its status says it."""
    script = tmp_path / "certificate_auditor.py"
    for module in (auditor, certificate_auditor):
        source = Path(str(module.__file__))
        (tmp_path / source.name).write_bytes(source.read_bytes())
    for case in VECTORS["cases"]:
        note = tmp_path / "note"
        note.write_text(case["note"])
        key = case.get("key", VECTORS["key"])
        done = subprocess.run(
            [sys.executable, "-E", "-s", str(script), str(note), "--key", key],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == (1 if "says" in case else 0), done.stderr


def test_an_order_is_irrecoverable_since_the_last_of_its_documents() -> None:
    """Whatever the order in which its documents were sealed and are named."""
    days = [datetime(2026, 6, day, tzinfo=UTC) for day in (2, 5, 3)]
    issued = [
        Issued(UUID(int=number), "loa", f"note {number}", at)
        for number, at in enumerate(days, start=1)
    ]
    order = Order(UUID(int=9), "uk", "acme", Status.PORTED, None, days[0], days[0], days[0])
    for chosen in (issued, issued[::-1]):
        text = order_certificate_text(order, chosen, datetime(2026, 6, 6, tzinfo=UTC))
        fields = parse_certificate(text)
        assert text.startswith(ORDER_FORMAT + "\n")
        assert fields["irrecoverable_since"] == "2026-06-05T00:00:00Z"
        assert [item["certificate_sha256"] for item in fields["documents"]] == [
            note_digest(item.note) for item in chosen
        ]
        assert (fields["status"], fields["ended_at"]) == ("ported", "2026-06-02T00:00:00Z")
        assert fields["issued_at"] == "2026-06-06T00:00:00Z"
