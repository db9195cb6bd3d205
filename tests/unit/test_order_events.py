"""What is said of an order adds up to the same, however it arrives."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.orders import AHEAD_MAX, ENDED, OrderEvent, Status, check_time, fold
from vault.errors import InvalidRequestError

START = datetime(2026, 1, 1, tzinfo=UTC)
CREATED = OrderEvent("desk", "0", Status.DRAFT, START)
EVENTS = st.lists(
    st.builds(
        lambda source, event, status, minutes: OrderEvent(
            source, str(event), status, START + timedelta(minutes=minutes)
        ),
        st.sampled_from(["telnyx", "twilio"]),
        st.integers(1, 30),
        st.sampled_from(list(Status)),
        st.integers(0, 5),
    ),
    max_size=12,
    unique_by=lambda event: (event.source, event.event),
)


@given(EVENTS, st.randoms())
def test_any_order_of_arrival_gives_the_same(events, random) -> None:
    """Late, contradictory events of one moment too: the same events are the same state."""
    shuffled = [*events, CREATED]
    random.shuffle(shuffled)
    folded = fold(shuffled)
    assert folded == fold([CREATED, *events])
    assert (folded.ended_at is not None) == (folded.status in ENDED)


def test_an_end_that_is_said_again_counts_from_the_first() -> None:
    """A port that is reported twice ended when it was reported first; a reversal begins anew."""
    events = [CREATED]
    for minutes, status in enumerate([Status.PORTED, Status.PORTED, Status.EXCEPTION], 1):
        events.append(
            OrderEvent("telnyx", str(minutes), status, START + timedelta(minutes=minutes))
        )
    assert fold(events[:3]).ended_at == START + timedelta(minutes=1)
    assert fold(events).ended_at is None
    again = OrderEvent("telnyx", "9", Status.PORTED, START + timedelta(minutes=9))
    assert fold([*events, again]).ended_at == again.occurred_at


@pytest.mark.parametrize(
    "at, says",
    [
        (datetime(2026, 1, 2), "offset"),  # noqa: DTZ001 - that is what is refused
        (START + timedelta(days=400), "future"),
        (START - timedelta(seconds=1), "before the order"),
    ],
)
def test_times_that_cannot_be_are_refused(at: datetime, says: str) -> None:
    """Naive, far-future and too early times are named; a day ahead is a clock that is off."""
    now = START + timedelta(days=3)
    with pytest.raises(InvalidRequestError, match=says):
        check_time(at, START, now)
    check_time(now + AHEAD_MAX, START, now)
    with pytest.raises(InvalidRequestError, match="future"):
        check_time(now + AHEAD_MAX + timedelta(microseconds=1), START, now)
