"""What `portvault restore` says: the command that does it, and first what is in question."""

from argparse import Namespace
from uuid import UUID

from keys.restore import Merged
from vault.actions.restore import Restored
from vault.commands.backups import restored_text
from vault.sql.restore import Line


def _line(number: int, state: str) -> Line:
    return Line(UUID(int=number), UUID(int=0), "passport", state, None)


def _told(*, dry_run: bool = True, leave_unknown: bool = False, region: str | None = None) -> str:
    tree = Merged("uk", "bucket", 1, 2, 2, 3, 1, 0)
    lines = tuple(map(_line, range(3), ("living", "unknown", "lost")))
    done = Restored("uk", None, tree, documents=lines)
    args = Namespace(dry_run=dry_run, leave_unknown=leave_unknown, region=region, file=None)
    return restored_text(done, args)


def test_a_dry_run_ends_with_its_own_options() -> None:
    """What is run next is what was tried."""
    assert _told().endswith("to do this: `portvault restore`.")
    said = _told(leave_unknown=True, region="uk")
    assert said.endswith("to do this: `portvault restore --region uk --leave-unknown`.")
    assert "to do this" not in _told(dry_run=False)


def test_what_is_in_question_comes_first_with_what_to_do() -> None:
    """The rows of what cannot be brought back, and a sentence on each state."""
    lines = _told().splitlines()
    states = [line.split()[3] for line in lines if line.startswith("00000000-")]
    assert states == ["unknown", "lost", "living"]
    assert any(line.startswith("unknown: bring its object back") for line in lines)
    assert any(line.startswith("lost: ") for line in lines)
