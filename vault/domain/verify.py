"""
Verify a region's log, from its records, its newest checkpoint and earlier ones.

Pure, so that the vault, the command line and an auditor call the same function. The checkpoints are
texts whose signatures were verified before. No outside witness countersigns yet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vault.domain.checkpoint import Checkpoint
from vault.domain.merkle import CompactRange, leaf_hash
from vault.domain.records import parse


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

    @property
    def good(self) -> bool:
        """Whether everything that can be checked holds."""
        return self.intact and self.complete and self.consistent


def verify_log(
    leaves: Iterable[tuple[int, bytes]], newest: Checkpoint, earlier: Sequence[Checkpoint] = ()
) -> Verdict:
    """Check (index, canonical record) pairs against the newest checkpoint and all earlier ones."""
    tree, findings = CompactRange(), list[str]()
    complete = True
    wanted = {item.size: item for item in earlier}
    open_intents: set[object] = set()
    prefixes = _check(wanted, tree)
    for index, data in leaves:
        if index != tree.size:
            complete = False
            findings.append(f"record {tree.size} is missing")
            break
        if index >= newest.size:
            complete = False
            findings.append(f"record {index} is past the checkpoint's size {newest.size}")
            break
        tree.append(leaf_hash(data))
        prefixes &= _check(wanted, tree)
        try:
            record = parse(data)
        except ValueError:
            complete = False
            findings.append(f"record {index} is no record")
            continue
        if record.phase == "intent" and record.decision == "allow":
            open_intents.add(record.id)
        elif record.phase == "outcome" and record.intent not in open_intents:
            complete = False
            findings.append(f"the outcome at {index} has no intent before it")
        else:
            open_intents.discard(record.intent)
    intact = tree.size == newest.size and tree.root() == newest.root
    if not intact:
        findings.append("the records do not hash to the root that the checkpoint states")
    consistent = prefixes and all(item.size <= tree.size for item in earlier)
    if not consistent:
        findings.append("an earlier checkpoint is not a prefix of this log")
    return Verdict(tree.size, intact, complete, consistent, len(open_intents), tuple(findings))


def _check(wanted: dict[int, Checkpoint], tree: CompactRange) -> bool:
    found = wanted.get(tree.size)
    return found is None or found.root == tree.root()
