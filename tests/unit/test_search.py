"""What the log's answers say beside the records: names of then, and whether bytes went out."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.access_records import record
from vault.domain.people import Name, Names
from vault.domain.records import Outcome, hands_out, went_out

START = datetime(2025, 3, 1, tzinfo=UTC)


def after(minutes: int) -> datetime:
    """Return a time that many minutes later."""
    return START + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "minutes, name", [(-5, "Ann"), (0, "Ann"), (59, "Ann"), (60, "Bea"), (61, "Bea"), (999, "Bea")]
)
def test_a_principal_has_the_name_of_that_time(minutes: int, name: str) -> None:
    """Whatever it is called now; and its first name in the record by which it was made."""
    names = Names([Name("p", after(60), "Bea"), Name("p", START, "Ann"), Name("q", START, "C")])
    assert names.at("p", after(minutes)) == name
    assert names.at("token:unknown", after(minutes)) is None


def follower(result: str | None, size: int | None, phase: str = "outcome") -> dict:
    """Return what a record has that follows an intent."""
    return {"phase": phase, "result": result, "size_bytes": size, "decision": None}


@pytest.mark.parametrize(
    "decision, followers, outcome, size",
    [
        ("deny", [], Outcome.REFUSED, 0),
        ("allow", [], Outcome.OPEN, None),
        ("allow", [follower(None, 7, "progress")], Outcome.OPEN, 7),
        ("allow", [follower("completed", 9)], Outcome.BYTES, 9),
        ("allow", [follower(None, 7, "progress"), follower("completed", 9)], Outcome.BYTES, 9),
        ("allow", [follower("failed", 0)], Outcome.NONE, 0),
        ("allow", [follower("aborted", 5)], Outcome.CUT, 5),
        ("allow", [follower("aborted", None)], Outcome.CUT, None),
        ("allow", [follower("interrupted", None)], Outcome.CUT, None),
        ("allow", [follower(None, 0, "progress"), follower("interrupted", None)], Outcome.CUT, 0),
    ],
)
def test_a_reading_says_whether_bytes_went_out(
    decision: str, followers: list[dict], outcome: Outcome, size: int | None
) -> None:
    """Where nobody counted to the end, nothing says that nothing went out."""
    intent = record(decision=decision, document=UUID(int=1))
    assert hands_out(intent)
    found = went_out(intent, [record(**fields) for fields in followers])
    assert (found.outcome, found.size_bytes) == (outcome, size)


def test_what_hands_nothing_out_has_no_such_word() -> None:
    """A look at an order, and an outcome itself."""
    assert not hands_out(record(action="order.read", order=UUID(int=1)))
    assert not hands_out(record(phase="outcome", document=UUID(int=1)))
    assert hands_out(record(action="order.numbers", order=UUID(int=1)))
