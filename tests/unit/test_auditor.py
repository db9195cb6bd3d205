"""The auditor's verdicts on an export: an honest one, and one with each thing done to it."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

import vault.audit.auditor
from keys.errors import IntegrityError
from keys.notes.note import Cosigner, Signer
from keys.notes.signing import Mark, announcement_text, handover_text, revocation_text, trust
from vault.audit.auditor import Audit, AuditError, Trust
from vault.domain.checkpoint import Checkpoint, decode, encode, minimum, origin
from vault.domain.merkle import CompactRange, leaf_hash, root_of
from vault.domain.records import Record, canonical_bytes
from vault.domain.tiles import subtrees
from vault.domain.verify import LogVerifier

AT = datetime(2025, 3, 1, tzinfo=UTC)
LOG, OTHER, THIRD = (
    Signer("portvault", Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))) for n in (1, 2, 4)
)
WITNESS = Cosigner("witness", Ed25519PrivateKey.from_private_bytes(bytes([3] * 32)))


def record(number: int, of: int | None = None, **fields: Any) -> bytes:
    """Return a record's bytes: an allowed intent, or the outcome of one."""
    made: dict[str, Any] = {
        "id": UUID(int=number),
        "region": "uk",
        "at": AT + timedelta(seconds=number),
        "phase": "intent" if of is None else "outcome",
        "principal": "token:x",
        "role": "porting",
        "action": "document.read",
        "intent": None if of is None else UUID(int=of),
        "decision": "allow" if of is None else None,
        "result": None if of is None else "completed",
    }
    return canonical_bytes(Record(**{**made, **fields}))


#: Intents with even numbers, each followed by its outcome; the last is in flight.
RECORDS = [record(n) if n % 2 == 0 else record(n, n - 1) for n in range(21)]
LEAVES = [leaf_hash(data) for data in RECORDS]


def checkpoint(size: int, leaves: Sequence[bytes] = LEAVES, signer: Signer = LOG) -> str:
    """Return the signed checkpoint of the first records."""
    return signer.sign(encode(Checkpoint(origin("uk"), size, root_of(leaves[:size]))))


def run_hashes(first: int, last: int) -> list[str]:
    """Return the hashes of the full subtrees of a run."""
    parts = [LEAVES[i << h : (i + 1) << h] for h, i in subtrees(first, last)]
    return [base64.b64encode(root_of(part)).decode() for part in parts]


def export(first: int = 0, last: int = 21, **head: Any) -> list[bytes]:
    """Return an honest export, a line each."""
    lines = [
        json.dumps(
            {
                "v": 1,
                "export": "portvault/uk",
                "first": first,
                "last": last,
                "size": 21,
                "left": run_hashes(0, first),
                "right": run_hashes(last, 21),
                "key": LOG.vkey,
                "handovers": [],
                "minimum": None,
                "checkpoint": checkpoint(21),
                **head,
            }
        ).encode()
    ]
    for index in range(first, last):
        leaf = base64.b64encode(LEAVES[index])
        lines.append(b'{"index":%d,"leaf":"%b","record":%b}' % (index, leaf, RECORDS[index]))
        if index == 9:
            lines.append(json.dumps({"checkpoint": checkpoint(10)}).encode())
    return [line + b"\n" for line in lines]


def audit(
    lines: Sequence[bytes], key: str = LOG.vkey, held: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    """Return the auditor's verdict."""
    made = Audit(key, held, **more)
    for line in lines:
        made.take(line)
    return made.verdict()


def offended(lines: Sequence[bytes], **more: Any) -> dict[str, int]:
    """Return the first index at which each verdict is offended."""
    found: dict[str, int] = audit(lines, **more)["first_offending"]
    return found


def test_an_honest_export_holds() -> None:
    """All of it, with what was held from before, and one intent in flight."""
    held = [checkpoint(size) for size in range(22)]
    found = audit(export(), held=held)
    assert [found[name] for name in ("intact", "complete", "consistent")] == [True] * 3
    assert (found["first"], found["last"], found["size"], found["in_flight"]) == (0, 21, 21, 1)
    assert (found["first_offending"], found["findings"]) == ({}, [])


@given(st.integers(0, 21), st.integers(0, 21))
def test_an_honest_stretch_holds(one: int, other: int) -> None:
    """From any record to any other, also none at all; what is held within is compared."""
    first, last = sorted((one, other))
    held = [checkpoint(size) for size in {first, last, 21}]
    assert offended(export(first, last), held=held) == {}


@pytest.mark.parametrize("at", range(21))
def test_an_edited_record_is_named(at: int) -> None:
    """The record alone, and the record with its leaf hash."""
    lines = export()
    (line,) = [n for n, text in enumerate(lines) if text.startswith(b'{"index":%d,' % at)]
    honest = lines[line]
    lines[line] = honest.replace(b"token:x", b"token:y")
    assert offended(lines) == {"intact": at}
    edited = RECORDS[at].replace(b"token:x", b"token:y")
    leaf = base64.b64encode(leaf_hash(edited))
    lines[line] = b'{"index":%d,"leaf":"%b","record":%b}\n' % (at, leaf, edited)
    # A hash that was made to fit is placed between the checkpoints around it.
    assert offended(lines) == {"intact": 0 if at < 10 else 10}
    assert offended(lines, held=[checkpoint(21)])["intact"] == (0 if at < 10 else 10)


@pytest.mark.parametrize("at", range(21))
def test_a_missing_record_is_named(at: int) -> None:
    """Left out, cut off behind it, or swapped with its neighbour."""
    lines = export()
    (line,) = [n for n, text in enumerate(lines) if text.startswith(b'{"index":%d,' % at)]
    gap = {"complete": at, "intact": at}
    assert offended(lines[:line] + lines[line + 1 :]) == gap
    assert offended(lines[:line]) == gap
    if at < 20 and at != 9:
        lines[line], lines[line + 1] = lines[line + 1], lines[line]
        assert offended(lines) == gap


def test_a_fork_is_named_by_who_holds_the_other_branch() -> None:
    """A checkpoint that was signed over other records, of any size, convicts."""
    other = [leaf_hash(str(n).encode()) for n in range(30)]
    for size in (1, 10, 20, 21):
        assert offended(export(), held=[checkpoint(size, other)]) == {"consistent": size}
    assert offended(export(), held=[checkpoint(25, other)]) == {"consistent": 25}
    found = audit(export(5, 15), held=[checkpoint(3), checkpoint(18)])
    assert found["first_offending"] == {"consistent": 3}
    assert "not shown" in found["findings"][0]


def test_what_ends_without_having_begun_is_named() -> None:
    """An outcome whose intent is nowhere; in a stretch it may lie before the first record."""
    made = [record(0), record(1, 0), record(3, 2)]
    lines, leaves = export(0, 3)[:4], [leaf_hash(data) for data in made]
    head = json.loads(lines[0])
    head |= {"size": 3, "right": [], "checkpoint": checkpoint(3, leaves)}
    lines = [json.dumps(head).encode()]
    for index, data in enumerate(made):
        leaf = base64.b64encode(leaves[index])
        lines.append(b'{"index":%d,"leaf":"%b","record":%b}' % (index, leaf, data))
    assert offended(lines) == {"complete": 2}
    assert offended(export(1, 3)) == {}


def test_an_intent_that_is_left_open_is_named() -> None:
    """One that has no outcome is in flight for a day, and then missing one."""
    for days, expected in ((0.9, {}), (1.1, {"complete": 0})):
        made = [record(0), record(7, at=AT + timedelta(days=days))]
        leaves = [leaf_hash(data) for data in made]
        head = json.loads(export(0, 0)[0])
        head |= {"last": 2, "size": 2, "right": [], "checkpoint": checkpoint(2, leaves)}
        lines = [json.dumps(head).encode()]
        for index, data in enumerate(made):
            leaf = base64.b64encode(leaves[index])
            lines.append(b'{"index":%d,"leaf":"%b","record":%b}' % (index, leaf, data))
        assert offended(lines) == expected


def test_trimmed_records_keep_the_tree() -> None:
    """Below the size that the log's key has signed as trimmed, hashes are enough; above, never."""
    lines = export()
    for index in range(5):
        lines[1 + index] = b'{"index":%d,"leaf":"%b"}\n' % (index, base64.b64encode(LEAVES[index]))
    assert offended(lines) == {"intact": 0, "complete": 0}
    for size, expected in ((5, {}), (6, {}), (4, {"intact": 4, "complete": 4})):
        said = LOG.sign(encode(minimum(Checkpoint(origin("uk"), size, root_of(LEAVES[:size])))))
        lines[0] = export(minimum=said)[0]
        assert offended(lines) == expected
    strange = OTHER.sign(encode(minimum(Checkpoint(origin("uk"), 21, root_of(LEAVES)))))
    for forged in (checkpoint(5), strange):
        lines[0] = export(minimum=forged)[0]
        with pytest.raises(AuditError):
            audit(lines)


def test_a_witness_anchors_the_log() -> None:
    """The largest size that a trusted witness cosigned counts; a stranger's word does not."""
    note = checkpoint(10)
    cosigned = note + WITNESS.cosign(note.partition("\n\n")[0] + "\n", 1_700_000_000)
    lines = export()
    lines[11] = json.dumps({"checkpoint": cosigned}).encode()
    found = audit(lines, witnesses=[WITNESS.vkey])
    assert (found["anchored"], found["anchored_size"]) == (True, 10)
    alone = audit(lines)
    # Cosigned or not: who names no witness has asked nobody.
    assert (alone["anchored"], alone["anchored_size"], alone["findings"]) == (None, None, [])
    assert offended(export(), witnesses=[WITNESS.vkey]) == {"anchored": 0}
    newest = checkpoint(21)
    both = newest + WITNESS.cosign(newest.partition("\n\n")[0] + "\n", 1_700_000_001)
    assert audit(export(checkpoint=both), witnesses=[WITNESS.vkey])["anchored_size"] == 21
    assert audit(export(checkpoint=both)[:5], witnesses=[WITNESS.vkey])["anchored"] is False


def signed_by(text: str, *signers: Signer) -> str:
    """Return a note of several signers."""
    return f"{text}\n{''.join(signer.line(text) for signer in signers)}"


def mark(size: int, origin: str = "portvault/uk") -> Mark:
    """Return what the log was at a size."""
    return Mark(origin, size, base64.b64encode(root_of(LEAVES[:size])).decode())


def test_trust_follows_handovers() -> None:
    """Who holds the key from before accepts the new one that it named, and no other."""
    signed = checkpoint(21, signer=OTHER)
    for text in (
        announcement_text(LOG.vkey, OTHER.vkey),
        handover_text(LOG.vkey, OTHER.vkey, [mark(10)]),
    ):
        both = signed_by(text, LOG, OTHER)
        assert offended(export(checkpoint=signed, handovers=[both]), held=[checkpoint(10)]) == {}
        for handovers in ([], [LOG.sign(text)], [OTHER.sign(text)]):
            with pytest.raises(AuditError, match="not signed by this key"):
                audit(export(checkpoint=signed, handovers=handovers))


def test_who_has_the_new_key_alone_believes_no_log_that_the_retired_one_signs_now() -> None:
    """The retired key counts up to the handover, whose log must be a prefix of what is shown."""
    ended = signed_by(handover_text(LOG.vkey, OTHER.vkey, [mark(10)]), LOG, OTHER)
    announced = signed_by(announcement_text(LOG.vkey, OTHER.vkey), LOG, OTHER)
    honest = checkpoint(21, signer=OTHER)
    for handovers in ([ended], [announced, ended], [ended, announced]):
        found = audit(export(checkpoint=honest, handovers=handovers), OTHER.vkey)
        assert found["findings"] == []
        with pytest.raises(AuditError, match="ceased to sign"):
            audit(export(handovers=handovers), OTHER.vkey)
    with pytest.raises(AuditError, match="ceased to sign"):
        audit(export(handovers=[announced]), OTHER.vkey)
    found = audit(export(checkpoint=honest, handovers=[announced]), OTHER.vkey)
    assert found["findings"] == []
    # Another log that is short enough for the old key, and one that is not the one handed over.
    forged = signed_by(handover_text(LOG.vkey, OTHER.vkey, [mark(30)]), LOG, OTHER)
    found = audit(export(handovers=[forged]), OTHER.vkey)
    assert found["consistent"] is False
    other = Mark("portvault/uk", 10, base64.b64encode(bytes(32)).decode())
    changed = signed_by(handover_text(LOG.vkey, OTHER.vkey, [other]), LOG, OTHER)
    found = audit(export(checkpoint=honest, handovers=[changed]), OTHER.vkey)
    assert (found["consistent"], found["first_offending"]) == (False, {"consistent": 10})


def test_a_revoked_key_counts_no_further() -> None:
    """By its successor's word; and by its own for who was given no other, who is told."""
    ended = signed_by(handover_text(LOG.vkey, OTHER.vkey, [mark(21)]), LOG, OTHER)
    audit(export(handovers=[ended]), OTHER.vkey)
    revoked = OTHER.sign(revocation_text(LOG.vkey, [mark(10)]))
    with pytest.raises(AuditError, match="ceased to sign"):
        audit(export(handovers=[ended, revoked]), OTHER.vkey)
    itself = LOG.sign(revocation_text(LOG.vkey, [mark(10)]))
    with pytest.raises(AuditError, match="stolen"):
        audit(export(handovers=[ended, itself]), LOG.vkey)


def test_of_two_handovers_to_one_key_the_one_that_says_less_counts() -> None:
    """Both readers: what one of them says nothing of does not count by the other."""
    marks: tuple[list[Mark], ...] = ([], [mark(0)], [mark(0), mark(21)])
    notes = [signed_by(handover_text(LOG.vkey, OTHER.vkey, one), LOG, OTHER) for one in marks]
    for given_notes in (notes[:2], notes[1::-1], notes):
        found = Trust(LOG.vkey, given_notes).verified(checkpoint(0, signer=LOG))
        assert found is not None
        assert not found[1]
        with pytest.raises(IntegrityError):
            trust(LOG.vkey, given_notes).verify(checkpoint(0, signer=LOG))


@settings(deadline=None)
@given(st.integers(0, 6), st.data())
def test_two_readers_of_handovers_agree(number: int, data: st.DataObject) -> None:
    """The vault's reading of any notes and the auditor's, written apart, count alike."""
    signers = [LOG, OTHER, THIRD]
    notes = []
    for _ in range(number):
        old, new = data.draw(st.permutations(signers))[:2]
        marks = [mark(size) for size in data.draw(st.lists(st.integers(0, 21), max_size=2))]
        text, by = data.draw(
            st.sampled_from(
                [
                    (announcement_text(old.vkey, new.vkey), (old, new)),
                    (handover_text(old.vkey, new.vkey, marks), (old, new)),
                    (handover_text(old.vkey, new.vkey, marks), (old,)),
                    (revocation_text(old.vkey, marks), (old,)),
                    (revocation_text(old.vkey, marks), (new,)),
                ]
            )
        )
        notes.append(signed_by(text, *by))
    ours, theirs = trust(LOG.vkey, notes), Trust(LOG.vkey, notes)
    assert ours.revoked == theirs.revoked
    for signer in signers:
        for size in range(22):
            note = checkpoint(size, signer=signer)
            found = theirs.verified(note)
            try:
                counts = bool(ours.verify(note))
            except IntegrityError:
                counts = False
            assert counts == bool(found and found[1])


def test_what_is_no_export_is_refused() -> None:
    """Whatever comes in, it is a verdict or a refusal in a sentence."""
    lines = export()
    for wrong in (
        [],
        [b"", *lines],
        [b"null\n", *lines],
        [lines[0].replace(b'"v": 1', b'"v": 3')],
        [lines[0].replace(b"portvault/uk", b"portvault/sg", 1)],
        [lines[0].replace(b'"left": []', b'"left": ["AAAA"]')],
        [lines[0], b'{"index":0,"leaf":"!"}\n'],
        [lines[0], b"[]\n"],
        [lines[0], b'{"index":0'],
        [lines[0], json.dumps({"checkpoint": checkpoint(5, signer=OTHER)}).encode()],
    ):
        with pytest.raises(AuditError):
            audit(wrong)
    for key in ("", "portvault", WITNESS.vkey, LOG.vkey[:-4]):
        with pytest.raises(AuditError):
            Audit(key)
    with pytest.raises(AuditError):
        Audit(LOG.vkey, witnesses=[LOG.vkey])


@given(st.data())
def test_two_verifiers_agree(data: st.DataObject) -> None:
    """The vault's own, which reads a database, and the auditor's give the same verdicts."""
    records: list[bytes | None] = list(RECORDS)
    leaves = list(LEAVES)
    places = list(range(21))
    at = data.draw(st.integers(0, 20))
    match data.draw(st.sampled_from(["edit", "rehash", "delete", "garbage", "trim", "nothing"])):
        case "edit":
            records[at] = RECORDS[at].replace(b"token:x", b"token:z")
        case "rehash":
            records[at] = RECORDS[at].replace(b"token:x", b"token:z")
            leaves[at] = leaf_hash(records[at] or b"")
        case "delete":
            places.remove(at)
        case "garbage":
            records[at] = b"{}"
        case "trim":
            records[at] = None
    verifier = LogVerifier(decode(checkpoint(21).partition("\n\n")[0] + "\n"))
    lines = [export()[0]]
    for index in places:
        verifier.add(index, records[index], leaves[index])
        line = b'{"index":%d,"leaf":"%b"' % (index, base64.b64encode(leaves[index]))
        body = records[index]
        lines.append(line + (b"}\n" if body is None else b',"record":' + body + b"}\n"))
    ours, theirs = verifier.verdict(), audit(lines)
    assert dict(ours.first_offending) == theirs["first_offending"]
    assert ours.in_flight == theirs["in_flight"]


def test_it_runs_as_one_file(tmp_path: Path) -> None:
    """Copied away from everything else, it audits a file and says what it found to a script."""
    alone, file, key = (tmp_path / name for name in ("auditor.py", "log.jsonl", "key"))
    alone.write_bytes(Path(vault.audit.auditor.__file__).read_bytes())
    key.write_text(LOG.vkey + "\n")
    held = tmp_path / "held"
    held.write_text(checkpoint(10))

    def run(lines: list[bytes], *options: str) -> tuple[int, str]:
        file.write_bytes(b"".join(lines))
        command = [sys.executable, "-I", str(alone), str(file), "--key", str(key), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    status, said = run(export(), "--held", str(held))
    assert (status, json.loads(said)["intact"]) == (0, True)
    edited = [line.replace(b"token:x", b"token:y") for line in export()]
    assert run(edited)[0] == 8
    assert run(export()[:-1])[0] == 8 + 16
    held.write_text(checkpoint(10, [leaf_hash(b"x")] * 10))
    assert run(export(), "--held", str(held))[0] == 32
    assert run(export(), "--witness", WITNESS.vkey)[0] == 64
    status, said = run([b"hello\n"])
    assert (status, said.startswith("audit: ")) == (1, True)
    assert run(export(), "--no-such")[0] == 2


def test_the_tree_is_the_definitions() -> None:
    """Grown record by record, or in subtrees, the auditor's tree is that of the RFC."""
    tree, ours = vault.audit.auditor.Tree(0, []), CompactRange()
    for leaf in LEAVES:
        tree.add(leaf)
        ours.append(leaf)
        assert tree.root() == ours.root()
    assert vault.audit.auditor.Tree(0, []).root() == root_of([])
