"""Certificates hold offline with nothing but the public key; what was altered does not."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from vault.audit import auditor, certificate_auditor
from vault.audit.certificate_auditor import CertificateError, verify
from vault.domain.certificates import (
    FORMAT,
    ORDER_FORMAT,
    Evidence,
    Issued,
    PolicyUsed,
    certificate_text,
    note_digest,
    order_certificate_text,
    parse_certificate,
)
from vault.domain.documents import Custody, Document, Kind
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


DAYS = [datetime(2026, 6, day, tzinfo=UTC) for day in range(1, 7)]
GONE = Document(
    id=UUID(int=1),
    region="uk",
    order_id=UUID(int=2),
    kind=Kind.LOA,
    custody=Custody.SEALED,
    media_type="application/pdf",
    size_bytes=1000,
    stream_header=b"header",
    metadata=None,
    received_at=DAYS[0],
    stored_at=DAYS[1],
    shredded_at=DAYS[2],
    shred_reason="duplicate",
    shredded_by="token:1",
    last_generation=7,
    purged_at=DAYS[3],
    purged_versions=2,
    sealed_at=DAYS[4],
    shred_ground="no-longer-needed",
    retention_row="loa-uk",
    reviewed=1,
    restricted_at=None,
)
EVIDENCE = Evidence("file", 0, "logical", None, (3, 4), None)


def certified(document: Document, evidence: Evidence = EVIDENCE) -> dict[str, object]:
    """Return the fields of a document's certificate."""
    text = certificate_text(document, evidence, DAYS[5])
    assert text.startswith(FORMAT + "\n")
    return parse_certificate(text)


def test_a_certificate_tells_the_two_times_and_every_other_apart() -> None:
    """Each time of the document stands under its own name, and what did not happen is null."""
    fields = certified(GONE)
    names = ("received_at", "stored_at", "beyond_use_since", "purged_at", "irrecoverable_since")
    assert [fields[name] for name in (*names, "issued_at")] == [
        f"2026-06-0{day}T00:00:00Z" for day in range(1, 7)
    ]
    never = certified(replace(GONE, stored_at=None, stream_header=None, purged_at=None))
    assert (never["stored_at"], never["purged_at"], never["stream_header"]) == (None, None, "")


def test_a_certificate_says_who_agreed_to_a_mistake_and_what_took_its_place() -> None:
    """Where nobody had to, it says nothing of it."""
    plain = {"ground": "no-longer-needed", "reason": "duplicate", "principal": "token:1"}
    assert certified(GONE)["trigger"] == plain
    agreed = {"against_floor": "sent by mistake", "approved_by": "token:2"}
    assert certified(replace(GONE, shred_approved_by="token:2"))["trigger"] == {**plain, **agreed}
    other = UUID(int=5)
    instead = {"replaced_by": str(other)}
    assert certified(replace(GONE, replaced_by=other))["trigger"] == {**plain, **instead}


@pytest.mark.parametrize(
    "reason, kept",
    [("duplicate", True), ("T-1", True), ("Mr Smith asked us to", False), (None, False)],
)
def test_a_certificate_keeps_no_sentence(reason: str | None, kept: bool) -> None:
    """Earlier releases took sentences as reasons; they do not get into a certificate."""
    trigger = certified(replace(GONE, shred_reason=reason))["trigger"]
    assert isinstance(trigger, dict)
    assert trigger["reason"] == (reason if kept else None)


def test_a_certificate_names_the_policy_or_that_it_is_not_known() -> None:
    """The members are there either way; what a restore could not tell is named by its member."""
    policy = PolicyUsed(3, "loa-uk", "the Act", "token:1", None)
    assert certified(GONE, replace(EVIDENCE, policy=policy))["policy"] == {
        "version": 3,
        "row": "loa-uk",
        "citation": "the Act",
        "applied_by": "token:1",
        "approved_by": None,
    }
    unknown = certified(replace(GONE, not_known=["policy", "shred_reason", "filename"]))
    assert isinstance(unknown["policy"], dict)
    assert set(unknown["policy"].values()) == {None}
    assert unknown["not_known"] == ["policy", "reason"]
    assert "not_known" not in certified(GONE)
