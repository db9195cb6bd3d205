"""What `portvault restore` says: the command that does it, and first what is in question."""

from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from keys.restore import Merged
from vault.actions import follow
from vault.actions.follow import Decision
from vault.actions.recover import OrderLine
from vault.actions.restore import Restored
from vault.commands.restore_report import LINES_MAX, WIDTH, folded, report, restored_text
from vault.sql.restore import Line

AT = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
STATES = ("living", "unknown", "lost", "recovered", "missing", "left", "shredded", "sealed")
TREE = Merged("uk", "bucket", 1, 2, 2, 3, 1, 0)


def _line(number: int, state: str, detail: str | None = None) -> Line:
    return Line(UUID(int=number), UUID(int=0), "passport", state, detail)


def _done(*states: str) -> Restored:
    return Restored("uk", None, TREE, documents=tuple(map(_line, range(len(states)), states)))


def _told(
    done: Restored | None = None,
    *,
    dry_run: bool = True,
    leave_unknown: bool = False,
    region: str | None = None,
) -> str:
    args = Namespace(dry_run=dry_run, leave_unknown=leave_unknown, region=region, file=None)
    return restored_text(done or _done("living", "unknown", "lost"), args)


def test_a_dry_run_ends_with_its_own_options() -> None:
    """What is run next is what was tried."""
    assert _told().endswith("To do this:\n  portvault restore")
    said = _told(leave_unknown=True, region="uk")
    assert said.endswith("To do this:\n  portvault restore --region uk --leave-unknown")
    assert "To do this" not in _told(dry_run=False)
    args = Namespace(dry_run=True, leave_unknown=False, region=None, file=None)
    refused = replace(_done("unknown"), region="sg", refused="x")
    for both in ([_done("living"), refused], [refused, _done("living")]):
        said = report(both, args)
        assert said.count("To do this:") == said.count("  portvault restore --region uk") == 1


def test_what_is_in_question_comes_first_with_what_to_do() -> None:
    """The documents that cannot be brought back, under a sentence on each state."""
    lines = _told().splitlines()
    ids = [line.split()[0][-1] for line in lines if line.startswith("  00000000-")]
    assert ids == ["1", "2", "0"]
    assert any(line.startswith("unknown (1): bring its object back") for line in lines)
    assert any(line.startswith("lost (1): ") for line in lines)


def test_objects_that_nothing_knows_are_counted() -> None:
    """They are said where there are any, and only there."""
    assert "nothing knows" not in _told()
    assert "3 that nothing knows" in _told(replace(_done("living"), unknown_objects=3))


@pytest.mark.parametrize("count", [1, 250])
def test_no_line_is_wider_than_a_terminal(count: int) -> None:
    """Whatever a restore may say of whatever it finds, with ids as long as they are."""
    details = [text for _, text in follow.LEFT.values()]
    hold = UUID(int=7)
    details += [
        "a word of " + "many letters " * 30,
        f"Narrow it: `portvault hold release {hold} --reason narrowed --approval {hold} --json`.",
    ]
    decisions = [
        Decision("instruction.withdraw", f"instruction/{hold}", AT, "x", follow.DOUBTED, text)
        for text in details * count
    ]
    done = replace(
        _done(*STATES * count),
        tree=replace(TREE, passed_over=("keys/" + "0" * 40,)),
        doubt="policy.apply of 2026-11-28 03:00, " * 5,
        decisions=tuple(decisions),
        orders=(OrderLine(hold, "lost", "opened after the last copy: open it again " * 3),),
        documents=tuple(
            replace(_line(n, state), detail="stored after the backup: its object does not open")
            for n, state in enumerate(STATES * count)
        ),
    )
    said = _told(done)
    assert max(map(len, said.splitlines())) <= WIDTH
    assert ("more; --json names all" in said) == (count > LINES_MAX)


def test_a_command_can_be_taken_as_it_stands() -> None:
    """A long one has lines of its own, which a shell joins; a short one stays in its sentence."""
    command = "portvault approval request --act expiry.resume --subject DAY --region uk --reason x"
    lines = folded(f"Do this: `{command}`, then `portvault restore` again.", "  ").splitlines()
    assert lines[0] == "  Do this:"
    assert lines[-1] == "  then `portvault restore` again."
    taken = "\n".join(lines[1:-1])
    assert " ".join(taken.replace("\\\n", " ").split()) == command


def test_what_is_left_behind_as_asked_is_not_asked_about() -> None:
    """The run that leaves it does not say that it may be left."""
    said = _told(dry_run=False, leave_unknown=True)
    assert said.count("left behind, as asked") == 2
    assert "--leave-unknown" not in said
