"""
Limits: how much one principal may read in an hour, so that a stolen token cannot empty the vault.

Pure. What counts is the hour that has just passed, in buckets of five minutes; a bucket counts
until all of it is older than an hour.
"""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

BUCKET_SECONDS = 300
WINDOW_BUCKETS = 12
#: From this part of a limit on, a look at who reads so much is due.
WARNING_PART = 0.8
#: What is read of no order, a fax, counts under this, and as no order.
NO_ORDER = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one principal may read in an hour: documents, and of how many orders."""

    reads: int
    orders: int


@dataclass(slots=True)
class Usage:
    """What one principal has read within the hour, as far as this process knows."""

    reads: int = 0
    orders: set[UUID] = field(default_factory=set)
    oldest_bucket: int | None = None

    def add(self, bucket: int, order: UUID, reads: int) -> None:
        """Count reads of an order."""
        self.reads += reads
        if order != NO_ORDER:
            self.orders.add(order)
        if self.oldest_bucket is None or bucket < self.oldest_bucket:
            self.oldest_bucket = bucket


def bucket_of(at: datetime) -> int:
    """Return the number of the five minutes that a moment lies in."""
    return int(at.timestamp()) // BUCKET_SECONDS


def first_counting(at: datetime) -> int:
    """Return the oldest bucket that still counts."""
    return bucket_of(at) - WINDOW_BUCKETS


def exceeded(usage: Usage, limits: Limits, order: UUID, reads: int) -> str | None:
    """Return a sentence when so many more reads of this order would be past a limit."""
    if reads and usage.reads + reads > limits.reads:
        return f"{limits.reads} reads an hour are allowed, and they were made"
    new = order != NO_ORDER and order not in usage.orders
    if new and len(usage.orders) + 1 > limits.orders:
        return f"{limits.orders} different orders an hour are allowed, and they were opened"
    return None


def is_notable(usage: Usage, limits: Limits) -> bool:
    """Whether the usage is so near a limit that somebody should look."""
    return (
        usage.reads >= limits.reads * WARNING_PART
        or len(usage.orders) >= limits.orders * WARNING_PART
    )


def retry_after_seconds(usage: Usage, at: datetime) -> int:
    """Return when the oldest of what was counted counts no more."""
    oldest = bucket_of(at) if usage.oldest_bucket is None else usage.oldest_bucket
    free_at = (oldest + WINDOW_BUCKETS + 1) * BUCKET_SECONDS
    return max(1, free_at - int(at.timestamp()))
