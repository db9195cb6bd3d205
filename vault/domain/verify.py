"""
Verify a region's log, from its records, its newest checkpoint and earlier ones.

Pure, so that the vault, the command line and an auditor call the same function. The checkpoints are
texts whose signatures were verified before (`checkpoint.open_checkpoint`). No outside witness
countersigns yet.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from vault.domain.checkpoint import Checkpoint
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import Record, parse

INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds of a log, and in a sentence each what does not."""

    size: int
    #: Every record hashes into the tree that the checkpoint states.
    intact: bool
    #: No gap; every allowed intent has its outcome, or is among `in_flight`.
    complete: bool
    #: Every earlier checkpoint is a prefix.
    consistent: bool
    in_flight: int
    findings: tuple[str, ...]
    #: Up to which size an outside witness countersigned; None: there is no witness.
    anchored: int | None = None

    @property
    def good(self) -> bool:
        """Whether everything that can be checked holds."""
        return self.intact and self.complete and self.consistent


class LogVerifier:
    """Takes a log's records one after the other, in bounded memory but for intents in flight."""

    def __init__(self, newest: Checkpoint, earlier: Sequence[Checkpoint] = ()) -> None:
        self._newest = newest
        self._tree = CompactRange()
        self._findings: list[str] = []
        self._contiguous = self._paired = True
        self._open: set[UUID] = set()
        # What the worker closed: if the process was alive after all, its own outcome comes late.
        self._interrupted: set[UUID] = set()
        self._roots: dict[int, set[bytes]] = defaultdict(set)
        for item in earlier:
            self._roots[item.size].add(item.root)
        self._origins = {item.origin for item in earlier} <= {newest.origin}
        self._meet_checkpoints()

    def add(self, index: int, data: bytes) -> bool:
        """Take the next record; False once the log is known to have a gap, and nothing else."""
        if not self._contiguous:
            return False
        size = self._tree.size
        if index != size or index >= self._newest.size:
            self._contiguous = False
            self._findings.append(
                f"record {size} is missing or not in its place"
                if index != size
                else f"record {index} is past the checkpoint's size {self._newest.size}"
            )
            return False
        self._tree.append(leaf_hash(data))
        self._meet_checkpoints()
        try:
            self._pair(index, parse(data))
        except ValueError:
            self._unpaired(f"record {index} is no record")
        return True

    def verdict(self) -> Verdict:
        """Return what holds of the records that were taken."""
        size, newest = self._tree.size, self._newest
        if self._contiguous and size < newest.size:
            self._contiguous = False
            self._findings.append(f"records {size} to {newest.size - 1} are missing")
        intact = size == newest.size and self._tree.root() == newest.root
        if not intact:
            self._findings.append("the records do not hash to the root that the checkpoint states")
        # Those that were met and agreed are gone from the table.
        consistent = not self._roots and self._origins
        if not consistent:
            self._findings.append("an earlier checkpoint is not a prefix of this log")
        return Verdict(
            size=size,
            intact=intact,
            complete=self._contiguous and self._paired,
            consistent=consistent,
            in_flight=len(self._open),
            findings=tuple(self._findings),
        )

    def _meet_checkpoints(self) -> None:
        size = self._tree.size
        if size in self._roots and self._roots[size] == {self._tree.root()}:
            del self._roots[size]

    def _pair(self, index: int, record: Record) -> None:
        if record.phase == "intent":
            if record.decision == "allow":
                self._open.add(record.id)
            return
        intent = record.intent
        if record.phase == "progress":
            if intent not in self._open and intent not in self._interrupted:
                self._unpaired(f"the progress at {index} has no intent that is open")
        elif intent in self._open:
            self._open.remove(intent)
            if record.result == INTERRUPTED:
                self._interrupted.add(intent)
        elif intent in self._interrupted:
            self._interrupted.remove(intent)
        elif record.result != INTERRUPTED:
            # The worker's `interrupted` may come in the same moment as the outcome itself.
            self._unpaired(f"the outcome at {index} has no intent before it")

    def _unpaired(self, finding: str) -> None:
        self._paired = False
        self._findings.append(finding)


def verify_log(
    leaves: Iterable[tuple[int, bytes]], newest: Checkpoint, earlier: Sequence[Checkpoint] = ()
) -> Verdict:
    """Check (index, canonical record) pairs against the newest checkpoint and all earlier ones."""
    verifier = LogVerifier(newest, earlier)
    for index, data in leaves:
        if not verifier.add(index, data):
            break
    return verifier.verdict()
