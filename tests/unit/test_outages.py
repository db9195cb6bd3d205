"""An outage is said once, then rarely with a count, and once when it is over."""

import logging

import pytest

from vault.process.outages import AGAIN_SECONDS, FORGET_SECONDS, REASONS_MAX, Outages


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outages(clock, caplog) -> Outages:
    caplog.set_level(logging.INFO)
    return Outages(logging.getLogger("test"), clock)


def test_an_hour_of_failures_is_a_few_lines(clock, outages, caplog) -> None:
    """What fails twice a second for an hour is said at first, every ten minutes, and at the end."""
    for half_second in range(7200):
        clock.now = half_second / 2
        outages.failed("seal in uk", "the store is away")
    outages.works("seal in uk")
    outages.works("seal in uk")
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "seal in uk: the store is away"
    assert said[1] == "seal in uk: the store is away (1201 failures in 600 seconds)"
    assert said[-1] == "seal in uk: works again, after 7200 failures in 3600 seconds"
    assert len(said) == 2 + 3600 // int(AGAIN_SECONDS) - 1


def test_another_reason_is_said_at_once(clock, outages, caplog) -> None:
    """A reason that is new in this outage waits for nothing; reasons without end are bounded."""
    outages.failed("seal in uk", "the store is away")
    outages.failed("seal in uk", "a key is missing")
    outages.failed("seal in uk", "the store is away")
    outages.failed("seal in sg", "the store is away")
    assert len(caplog.records) == 3
    for number in range(100):
        outages.failed("seal in sg", f"reason {number}")
    assert len(caplog.records) == 3 + REASONS_MAX - 1


def test_a_failure_after_a_long_quiet_is_new(clock, outages, caplog) -> None:
    """What nobody says works again is over when nothing was heard of it for long."""
    outages.failed("objects", "the store is away")
    clock.now += FORGET_SECONDS + 1
    outages.failed("objects", "the store is away")
    assert [record.getMessage() for record in caplog.records] == ["objects: the store is away"] * 2
