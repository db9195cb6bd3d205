"""
Verify a region's log, from its records, its newest checkpoint and earlier ones.

Pure, so that the vault and the console call the same function. The checkpoints are texts whose
signatures were verified before (`checkpoint.open_checkpoint`). An auditor, who trusts none of this,
has a verifier of its own (`vault/audit/auditor.py`); a test holds both against each other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from vault.domain.checkpoint import Checkpoint
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import PHASES, Record, parse

INTERRUPTED = "interrupted"
#: An intent that has no outcome after so long is not in flight any more.
IN_FLIGHT_MAX = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """
    Records that are under no published checkpoint yet: whoever owns the database can drop them.

    `first` is the size that is published; `seconds` is how long the oldest of them waits.
    """

    first: int = 0
    count: int = 0
    since: datetime | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds of a log, and in a sentence each what does not."""

    size: int
    #: Every record hashes into the tree that the checkpoint states.
    intact: bool
    #: No gap; every allowed intent has its outcome, or is among `in_flight`; nothing waits for
    #: longer than it may.
    complete: bool
    #: Every earlier checkpoint is a prefix.
    consistent: bool
    in_flight: int
    findings: tuple[str, ...]
    #: How many records are under no published checkpoint yet, and since when the oldest of them.
    waiting: int = 0
    waiting_since: datetime | None = None
    #: Up to which size an outside witness countersigned; None: no witness is known.
    anchored: int | None = None
    #: The first index at which each verdict that does not hold is offended.
    first_offending: Mapping[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether everything that can be checked holds."""
        return self.intact and self.complete and self.consistent


NOTHING_WAITS = Waiting()
#: What is said of one place, and of many.
_SENTENCES = {
    "not what was recorded": (
        "record {first} is not what was recorded",
        "{count} records, from {first} to {last}, are not what was recorded",
    ),
    "gone": (
        "record {first} is gone",
        "{count} records, from {first} to {last}, are gone",
    ),
    "no record": (
        "record {first} is no record",
        "{count} of the records, from {first} to {last}, are no records",
    ),
    "no prefix": (
        "the checkpoint of {first} records is not a prefix of this log",
        "{count} checkpoints, those of {first} to {last} records, are not prefixes of this log",
    ),
    "no outcome": (
        "the intent at {first} has no outcome",
        "{count} intents, from {first} to {last}, have no outcome",
    ),
    **{
        f"no intent {phase}": (
            f"the {phase} at {{first}} has no intent before it",
            f"{{count}} of phase {phase}, from {{first}} to {{last}}, have no intent before them",
        )
        for phase in PHASES
    },
}


@dataclass(frozen=True, slots=True)
class Run:
    """Where the same was found: the first and the last index, and at how many."""

    first: int
    last: int
    count: int


def _sentence(finding: str, run: Run) -> str:
    one, many = _SENTENCES.get(finding, (finding, finding))
    if finding not in _SENTENCES:
        return finding
    return (one if run.count == 1 else many).format(**asdict(run))


class LogVerifier:
    """Takes a log's records one after the other, in bounded memory but for intents in flight."""

    def __init__(
        self,
        newest: Checkpoint,
        earlier: Sequence[Checkpoint] = (),
        *,
        cosigned: Sequence[Checkpoint] | None = None,
        minimum: int = 0,
        waiting: Waiting = NOTHING_WAITS,
        waiting_seconds_max: float = float("inf"),
    ) -> None:
        self._newest, self._minimum = newest, minimum
        self._waiting, self._waiting_seconds_max = waiting, waiting_seconds_max
        self._tree = CompactRange()
        self._findings: dict[str, Run] = {}
        self._first: dict[str, int] = {}
        self._gap = False
        #: Whether every record so far has its body: only then each outcome's intent was seen.
        self._whole = True
        self._open: dict[UUID, tuple[int, datetime]] = {}
        # What the worker closed: if the process was alive after all, its own outcome comes late.
        self._interrupted: set[UUID] = set()
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._cosigned = None if cosigned is None else {item.size for item in cosigned}
        self._anchored = 0
        self._roots: dict[int, set[bytes]] = defaultdict(set)
        for item in (*earlier, *(cosigned or ())):
            if item.origin == newest.origin:
                self._roots[item.size].add(item.root)
            else:
                self.offend("consistent", item.size, f"a checkpoint is of {item.origin}")
        self._meet_checkpoints()

    def add(self, index: int, data: bytes | None, leaf: bytes | None = None) -> bool:
        """
        Take the next record, and its leaf hash where that is kept beside it.

        `data` is None for a record whose body is gone, as it may be below the signed `minimum`.
        False once the log is known to have a gap: from there on nothing can be said.
        """
        size = self._tree.size
        if not self._gap and index != size:
            self._missing(size, f"record {size} is missing or not in its place")
        if not self._gap and index >= self._newest.size:
            past = f"record {index} is past the checkpoint's size {self._newest.size}"
            self._gap = True
            self.offend("complete", index, past)
        if self._gap:
            return False
        hashed = leaf_hash(data) if data is not None else leaf
        self._tree.append(leaf or hashed or b"")
        if leaf is not None and hashed != leaf:
            self._repeat("intact", index, "not what was recorded")
        self._meet_checkpoints()
        if data is None:
            self._whole = False
            if index >= self._minimum:
                self._repeat("intact", index, "gone")
                self._repeat("complete", index, "gone")
            return True
        try:
            self._pair(index, parse(data))
        except ValueError:
            self._repeat("complete", index, "no record")
        return True

    def verdict(self) -> Verdict:
        """Return what holds of the records that were taken."""
        size, newest = self._tree.size, self._newest
        if not self._gap and size < newest.size:
            self._missing(size, f"records {size} to {newest.size - 1} are missing")
        if size == newest.size and self._tree.root() != newest.root:
            what = "the records do not hash to the root that the checkpoint states"
            self.offend("intact", self._anchored, what)
        # Those that were met and agreed are gone from the table.
        for earlier in sorted(self._roots):
            self._repeat("consistent", earlier, "no prefix")
        for index, begun_at in self._open.values():
            if self._latest - begun_at > IN_FLIGHT_MAX:
                self._repeat("complete", index, "no outcome")
        if self._waiting.seconds > self._waiting_seconds_max:
            self.offend(
                "complete",
                self._waiting.first,
                f"{self._waiting.count} records wait to be published, the oldest for longer than "
                f"{self._waiting_seconds_max:g} seconds; does a worker run?",
            )
        return Verdict(
            size=size,
            intact="intact" not in self._first,
            complete="complete" not in self._first,
            consistent="consistent" not in self._first,
            in_flight=len(self._open),
            findings=tuple(map(_sentence, self._findings, self._findings.values())),
            waiting=self._waiting.count,
            waiting_since=self._waiting.since,
            anchored=None if self._cosigned is None else self._anchored,
            first_offending=dict(self._first),
        )

    def offend(self, verdict: str, index: int, finding: str) -> None:
        """Note what is wrong, also what a caller sees that looks elsewhere."""
        self._first[verdict] = min(index, self._first.get(verdict, index))
        self._findings.setdefault(finding, Run(index, index, 1))

    def _repeat(self, verdict: str, index: int, kind: str) -> None:
        """Note what may be wrong at many places: it is one finding, with the first and last."""
        self._first[verdict] = min(index, self._first.get(verdict, index))
        run = self._findings.setdefault(kind, Run(index, index, 0))
        if run.count == 0 or run.last != index:
            self._findings[kind] = Run(min(run.first, index), max(run.last, index), run.count + 1)

    def _missing(self, index: int, finding: str) -> None:
        self._gap = True
        self.offend("complete", index, finding)
        self.offend("intact", index, finding)

    def _meet_checkpoints(self) -> None:
        size = self._tree.size
        if size in self._roots and self._roots[size] == {self._tree.root()}:
            del self._roots[size]
            if self._cosigned and size in self._cosigned:
                self._anchored = size

    def _pair(self, index: int, record: Record) -> None:
        self._latest = max(self._latest, record.at)
        if record.phase == "intent":
            if record.decision == "allow":
                self._open[record.id] = index, record.at
            return
        intent, ends = record.intent, record.phase == "outcome"
        if intent in self._open:
            if ends:
                del self._open[intent]
            if ends and record.result == INTERRUPTED:
                self._interrupted.add(intent)
        elif intent in self._interrupted:
            if ends:
                self._interrupted.remove(intent)
        elif self._whole and not (ends and record.result == INTERRUPTED):
            # The worker's `interrupted` may come in the same moment as the outcome itself.
            self._repeat("complete", index, f"no intent {record.phase}")


def verify_log(
    leaves: Iterable[tuple[int, bytes]], newest: Checkpoint, earlier: Sequence[Checkpoint] = ()
) -> Verdict:
    """Check (index, canonical record) pairs against the newest checkpoint and all earlier ones."""
    verifier = LogVerifier(newest, earlier)
    for index, data in leaves:
        if not verifier.add(index, data):
            break
    return verifier.verdict()
