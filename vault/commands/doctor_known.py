"""What the doctor takes from the database, to hold the other parts against."""

from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(slots=True)
class Known:
    """What the database says of each region: its tree's generation, its store, its log's state."""

    trees: dict[str, int] = field(default_factory=dict)
    #: Regions, each with a generation that was ever named.
    named: set[tuple[str, int]] = field(default_factory=set)
    #: Regions, each with a generation that its rows call destroyed, before the tree's.
    destroyed: set[tuple[str, int]] = field(default_factory=set)
    #: What the custodian opens where a tree's rows are the ones of its root key.
    root_wraps: dict[str, bytes] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)
    logs: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: The mirror's highest number, and for how many seconds something has been waiting for a seal.
    mirrors: dict[str, int] = field(default_factory=dict)
    #: How long the log is that was signed, and how long the one that was published.
    sizes: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    #: Whether the schema is this release's, and there is a tree.
    current: bool = False
    #: Why the worker lets nothing go by its time.
    stopped: dict[str, str] = field(default_factory=dict)
    #: Orders of which a restore could not tell whether they have ended.
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: What waits for too long.
    queues: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: How long an end waits for its reversal, where the database says it.
    grace: timedelta | None = None

    def state(self, region: str) -> tuple[int | None, ...]:
        """Return what a seal, a mirror or a published log changes."""
        each = (self.trees, self.mirrors, self.sizes, self.published)
        return tuple(found.get(region) for found in each)
