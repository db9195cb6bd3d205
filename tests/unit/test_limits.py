"""Limits of reading: at the limit, past it, and when it is over."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from vault.domain.limits import (
    BUCKET_SECONDS,
    NO_ORDER,
    WINDOW_BUCKETS,
    Limits,
    Usage,
    bucket_of,
    exceeded,
    first_counting,
    is_notable,
    retry_after_seconds,
)

NOW = datetime(2026, 1, 1, 12, 2, tzinfo=UTC)
LIMITS = Limits(reads=10, orders=3)
ORDERS = [uuid.UUID(int=n) for n in range(1, 5)]


def used(reads: int, orders: int) -> Usage:
    """Return a usage of so many reads of so many orders."""
    usage = Usage()
    for order in ORDERS[:orders]:
        usage.add(bucket_of(NOW), order, 0)
    usage.reads = reads
    return usage


@pytest.mark.parametrize(
    "usage, order, reads, says",
    [
        (used(0, 0), ORDERS[0], 1, None),
        (used(9, 1), ORDERS[0], 1, None),
        (used(10, 1), ORDERS[0], 1, "10 reads"),
        (used(10, 1), ORDERS[0], 0, None),
        (used(0, 2), ORDERS[3], 1, None),
        (used(0, 3), ORDERS[0], 1, None),
        (used(0, 3), ORDERS[3], 1, "3 different orders"),
        (used(0, 3), ORDERS[3], 0, "3 different orders"),
        (used(0, 0), NO_ORDER, 1, None),
    ],
)
def test_the_limit_is_where_it_says(
    usage: Usage, order: uuid.UUID, reads: int, says: str | None
) -> None:
    """The last read within a limit is allowed, the next is not, and says which limit it is."""
    found = exceeded(usage, LIMITS, order, reads)
    assert (found is None) if says is None else (found or "").startswith(says)


def test_somebody_is_told_before_it_is_reached() -> None:
    """From four fifths of a limit on, it is a signal."""
    assert not is_notable(used(7, 2), LIMITS)
    assert is_notable(used(8, 0), LIMITS)
    assert is_notable(used(0, 3), LIMITS)


def test_what_belongs_to_no_order_counts_as_none() -> None:
    """A gateway whose first fax is read is near no limit of orders, and at none."""
    usage = Usage()
    usage.add(1, NO_ORDER, 1)
    faxes = Limits(reads=10, orders=1)
    assert not is_notable(usage, faxes)
    assert exceeded(usage, faxes, NO_ORDER, 1) is None
    assert exceeded(used(0, 3), LIMITS, NO_ORDER, 1) is None


def test_what_is_older_than_an_hour_counts_no_more() -> None:
    """A bucket counts until the whole of it is older than an hour, and then trying again helps."""
    usage = used(10, 1)
    wait = retry_after_seconds(usage, NOW)
    assert 3600 < wait <= 3600 + BUCKET_SECONDS
    assert first_counting(NOW + timedelta(seconds=wait)) > bucket_of(NOW)
    assert first_counting(NOW + timedelta(seconds=wait - 1)) == bucket_of(NOW)
    assert retry_after_seconds(Usage(), NOW) >= 1


@pytest.mark.parametrize("minutes", range(0, 180, 7))
def test_what_was_counted_first_counts_no_more_after_the_window(minutes: int) -> None:
    """The oldest bucket stays the oldest, whatever comes later; then it and its window pass."""
    first = NOW + timedelta(minutes=minutes)
    usage = Usage()
    for later in (5, 0, 20):
        usage.add(bucket_of(first + timedelta(minutes=later)), ORDERS[0], 1)
    assert usage.oldest_bucket == bucket_of(first)
    free_at = bucket_of(first) * BUCKET_SECONDS + (WINDOW_BUCKETS + 1) * BUCKET_SECONDS
    for at in (first, first + timedelta(minutes=20)):
        assert retry_after_seconds(usage, at) == free_at - int(at.timestamp())
