"""The verdicts on a log: an honest one, and one with each thing that can be done to it."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.checkpoint import Checkpoint, origin
from vault.domain.merkle import EMPTY_ROOT, leaf_hash, root_of
from vault.domain.records import Record, canonical_bytes
from vault.domain.verify import Verdict, verify_log

AT = datetime(2025, 3, 1, tzinfo=UTC)
Leaves = list[tuple[int, bytes]]


def record(number: int, intent: int | None = None, **fields: str) -> bytes:
    """Return a record as bytes: an allowed intent, or the outcome of one."""
    made = Record(
        id=UUID(int=number),
        region="uk",
        at=AT,
        phase="intent" if intent is None else "outcome",
        principal="token:x",
        role="porting",
        action="document.read",
        intent=None if intent is None else UUID(int=intent),
        decision=fields.get("decision", "allow") if intent is None else None,
        result=None if intent is None else fields.get("result", "completed"),
    )
    return canonical_bytes(made)


def log_of(*records: bytes) -> Leaves:
    """Give records their places."""
    return list(enumerate(records))


def checkpoint(leaves: Leaves, size: int | None = None, region: str = "uk") -> Checkpoint:
    """Return what an honest log says of its first records."""
    data = [item for _, item in leaves][:size]
    return Checkpoint(origin(region), len(data), root_of([leaf_hash(item) for item in data]))


HONEST = log_of(
    record(0), record(1), record(10, 0), record(2, decision="deny"), record(11, 1), record(3)
)


def three(verdict: Verdict) -> tuple[bool, bool, bool]:
    """Return intact, complete, consistent."""
    return verdict.intact, verdict.complete, verdict.consistent


def test_an_honest_log_holds() -> None:
    """All hold; a refusal needs no outcome; what is in flight is counted; nobody witnesses."""
    earlier = [checkpoint(HONEST, size) for size in range(len(HONEST))]
    verdict = verify_log(HONEST, checkpoint(HONEST), earlier)
    assert verdict.good
    assert (verdict.size, verdict.in_flight, verdict.findings) == (6, 1, ())
    assert verdict.anchored is None


def test_what_is_wrong_at_many_places_is_one_finding() -> None:
    """One altered leaf, seen by 250 checkpoints; and 200 records that are no records."""
    log = log_of(*(record(number) for number in range(250)))
    earlier = [checkpoint(log, size) for size in range(1, 250)]
    verdict = verify_log([(0, record(999)), *log[1:]], checkpoint(log), earlier)
    assert verdict.findings == (
        "the records do not hash to the root that the checkpoint states",
        "249 checkpoints, those of 1 to 249 records, are not prefixes of this log",
    )
    assert (verdict.intact, verdict.consistent) == (False, False)
    assert verdict.first_offending["consistent"] == 1
    spoiled = log_of(*(b"x" for _ in range(200)))
    said = "200 of the records, from 0 to 199, are no records"
    assert verify_log(spoiled, checkpoint(spoiled)).findings == (said,)


def test_the_empty_log_holds() -> None:
    """Nothing, said to be nothing, is in order."""
    assert verify_log([], Checkpoint(origin("uk"), 0, EMPTY_ROOT)).good


@given(st.integers(0, 5), st.data())
def test_whatever_is_done_to_the_records_is_found(at: int, data: st.DataObject) -> None:
    """An edit, a deletion, an insertion, a swap, a renumbering: not intact, whichever record."""
    changed = list(HONEST)
    match data.draw(st.sampled_from(["edit", "delete", "insert", "swap", "truncate", "renumber"])):
        case "edit":
            changed[at] = (at, changed[at][1].replace(b"token:x", b"token:y"))
        case "delete":
            del changed[at]
        case "insert":
            changed = log_of(
                *[d for _, d in changed[:at]], record(9), *[d for _, d in changed[at:]]
            )
        case "swap":
            other = data.draw(st.integers(0, 5).filter(lambda number: number != at))
            changed[at], changed[other] = (at, changed[other][1]), (other, changed[at][1])
        case "truncate":
            del changed[at:]
        case "renumber":
            del changed[at]
            changed = log_of(*[item for _, item in changed])
    verdict = verify_log(changed, checkpoint(HONEST))
    assert not verdict.intact
    assert verdict.findings


@pytest.mark.parametrize("at", range(6))
def test_a_gap_is_named(at: int) -> None:
    """A record that is gone leaves the log incomplete, the last one too."""
    verdict = verify_log([item for item in HONEST if item[0] != at], checkpoint(HONEST))
    assert three(verdict) == (False, False, True)
    assert f"{at}" in verdict.findings[0]


def test_records_past_the_checkpoint_are_named() -> None:
    """A checkpoint that was rolled back below its records gives itself away."""
    verdict = verify_log(HONEST, checkpoint(HONEST, 4))
    assert not verdict.complete
    assert "past the checkpoint" in verdict.findings[0]


def test_a_new_log_in_place_of_the_old_is_found_by_who_remembers() -> None:
    """A log rewritten whole, and signed again, is intact; one earlier checkpoint convicts it."""
    rewritten = log_of(record(0), record(10, 0), record(3))
    assert verify_log(rewritten, checkpoint(rewritten)).good
    remembered = [checkpoint(HONEST, 2)]
    assert three(verify_log(rewritten, checkpoint(rewritten), remembered)) == (True, True, False)


def test_a_log_shorter_than_remembered_is_found() -> None:
    """Truncated together with its newest checkpoints, it is behind what was seen before."""
    verdict = verify_log(HONEST[:3], checkpoint(HONEST, 3), [checkpoint(HONEST)])
    assert three(verdict) == (True, True, False)


def test_two_checkpoints_of_one_size_convict_whatever_their_order() -> None:
    """A fork is found also where the other branch has the very same size."""
    fork = Checkpoint(origin("uk"), 4, leaf_hash(b"other"))
    both = [checkpoint(HONEST, 4), fork]
    for earlier in (both, both[::-1], [fork]):
        assert not verify_log(HONEST, checkpoint(HONEST), earlier).consistent


@pytest.mark.parametrize("size", [0, 6])
def test_a_fork_at_either_end_is_found(size: int) -> None:
    """Also a checkpoint of nothing, and one of the newest size, must agree."""
    fork = Checkpoint(origin("uk"), size, leaf_hash(b"other"))
    assert not verify_log(HONEST, checkpoint(HONEST), [fork]).consistent


def test_a_checkpoint_of_another_log_is_no_prefix() -> None:
    """The same tree under another log's name is not this log."""
    verdict = verify_log(HONEST, checkpoint(HONEST), [checkpoint(HONEST, 3, region="sg")])
    assert not verdict.consistent


def test_an_outcome_needs_its_intent() -> None:
    """An outcome of nothing, of a refusal or before its intent leaves the log incomplete."""
    for leaves in (
        log_of(record(10, 0)),
        log_of(record(0, decision="deny"), record(10, 0)),
        log_of(record(10, 0), record(0)),
        log_of(record(0), record(10, 0), record(11, 0)),
    ):
        verdict = verify_log(leaves, checkpoint(leaves))
        assert three(verdict) == (True, False, True)


def test_a_late_outcome_after_interrupted_is_no_fault() -> None:
    """Whom the worker took for dead may still conclude, once; and both may come at once."""
    late = log_of(record(0), record(10, 0, result="interrupted"), record(11, 0))
    assert verify_log(late, checkpoint(late)).good
    together = log_of(record(0), record(10, 0), record(11, 0, result="interrupted"))
    assert verify_log(together, checkpoint(together)).good
    twice = log_of(*[data for _, data in late], record(12, 0))
    assert not verify_log(twice, checkpoint(twice)).complete


def test_what_is_no_record_is_named() -> None:
    """Bytes that hash into the tree and are no record are intact, but not complete."""
    leaves = log_of(record(0), b"{}", record(10, 0))
    verdict = verify_log(leaves, checkpoint(leaves))
    assert three(verdict) == (True, False, True)
    assert verdict.findings == ("record 1 is no record",)
