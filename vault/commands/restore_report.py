"""
The report of a restore for people: at most 80 columns, ids and commands on lines of their own.

What is in question comes first, and last what to do next. `--json` has it all as data.
"""

import argparse
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import wrap

from vault.actions.follow import DOUBTED, LOST, Decision
from vault.actions.recover import OrderLine
from vault.actions.restore import Restored
from vault.sql.restore import Line

WIDTH = 80
LINES_MAX = 200
#: A command that is longer than this has a line of its own.
INLINE_MAX = 32
#: What to do about documents that cannot be brought back.
IN_QUESTION = {
    "unknown": "bring its object back into the bucket and begin again, or restore a later backup, "
    "or leave it with `--leave-unknown`",
    "lost": "its key is in no copy that is here: restore a later backup, or replay more WAL. With "
    "`--leave-unknown` it is left, and no later backup brings it back: the seal of the restore "
    "destroys the root key that its key hangs on there",
}
_STATES = {
    **IN_QUESTION,
    "missing": "bring its object back into the bucket, or shred it",
    "left": "an earlier restore left it behind; nothing is asked about it any more",
    "recovered": "came after the backup, and is here again",
    "living": "as in the backup",
    "shredded": "gone, and stays so",
    "sealed": "gone, and stays so",
}
_LEFT = {
    "unknown": "left behind, as asked: its key and object stay where they are, no restore asks "
    "about it again, and one that can brings it back",
    "lost": "left behind, as asked: its object stays, and no restore asks about it again. A later "
    "backup has its key, and cannot open it any more after the seal of this restore: if there may "
    "be one, restore that one instead",
}
_ORDER = tuple(_STATES)
_DECISIONS = (DOUBTED, LOST)
_COMMAND = re.compile(r"`([^`]+)`[,.;]?(?: (?=\S))?")
_OPTION = re.compile(r"(--[\w-]+) (?!-)")
_HARD_SPACE = "\N{NO-BREAK SPACE}"


def report(done: Sequence[Restored], args: argparse.Namespace) -> str:
    """Return what is said of all regions; what is to be run next names none that is refused."""
    alone = args.region is None and any(item.refused for item in done)
    return "\n\n".join(
        restored_text(
            item, argparse.Namespace(**{**vars(args), "region": item.region}) if alone else args
        )
        for item in done
    )


def restored_text(done: Restored, args: argparse.Namespace) -> str:
    """Return what is said of a region: what is in question first, and last how to do it."""
    parts = [_summary(done, dry=args.dry_run), _doubt(done)]
    documents = sorted(done.documents, key=lambda line: _ORDER.index(line.state))
    asked = [line for line in documents if line.state in IN_QUESTION]
    parts.append(_documents(asked, left=args.leave_unknown))
    parts.append(_decisions(done.decisions))
    parts.append(_orders(done.orders))
    parts.append(_documents([line for line in documents if line.state not in IN_QUESTION]))
    if args.dry_run and not done.refused:
        loaded = " FILE is loaded, so it is not named again." if args.file is not None else ""
        options = [f"--region {args.region}"] if args.region else []
        options += ["--leave-unknown"] if args.leave_unknown else []
        command = " ".join(["portvault restore", *options])
        parts.append(f"Nothing is changed yet.{loaded} To do this:\n  {command}")
    return "\n\n".join(part for part in parts if part)


def folded(text: str, indent: str = "") -> str:
    """Return a text folded to the width; a long command in it stands on lines that can be taken."""
    shown, rest = list[str](), ""
    place = 0
    for found in _COMMAND.finditer(text):
        rest += text[place : found.start()]
        place = found.end()
        if len(found[1]) <= INLINE_MAX:
            rest += found[0].replace(" ", _HARD_SPACE, found[1].count(" "))
            continue
        shown += _lines(rest, indent)
        shown += _command(found[1], indent + "  ")
        rest = ""
    shown += _lines(rest + text[place:], indent)
    return "\n".join(shown)


def _lines(text: str, indent: str) -> list[str]:
    lines = wrap(
        text.strip(),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace(_HARD_SPACE, " ") for line in lines]


def _command(command: str, indent: str) -> list[str]:
    """Return a command on as many lines as it needs, each but the last with a backslash."""
    # An option and its value stay together.
    lines = wrap(
        _OPTION.sub(rf"\1{_HARD_SPACE}", command),
        WIDTH - 2,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    lines = [line.replace(_HARD_SPACE, " ") for line in lines]
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _doubt(done: Restored) -> str:
    if not done.doubt:
        return ""
    return folded(
        f"NOTHING OF {done.region} GOES BY ITS TIME: it is not known what was decided by "
        f"{done.doubt}. Do what is said below, then have two people agree, with the day as "
        f"YYYY-MM-DD (UTC): `portvault approval request --act expiry.resume --subject DAY --region "
        f"{done.region} --reason incident`, and somebody else: `portvault approval approve ID`"
    )


def _summary(done: Restored, *, dry: bool) -> str:
    tree = done.tree
    if tree is None:
        return folded(f"{done.region}: nothing was changed")
    counts = [f"{done.count(state)} {state}" for state in _ORDER if done.count(state)]
    verb = "not restored" if done.refused else "would be restored" if dry else "restored"
    had = tree.database_generation or "none"
    facts = {
        "key tree": f"the {tree.source}'s, generation {tree.generation}; the database had {had}",
        "log": f"{done.records} access records taken over",
        "shreds": f"{done.shredded_again} repeated on keys that the tree still had",
        "documents": ", ".join(counts) or "none",
    }
    if tree.passed_over:
        facts["passed over"] = (
            f"{len(tree.passed_over)} segments of the key tree in the bucket do not verify, such "
            f"as {tree.passed_over[0]}"
        )
    if done.unknown_objects:
        facts["objects"] = (
            f"{done.unknown_objects} that nothing knows: stored just before the loss, or cut "
            "short; without its key none of them opens. Whoever had an answer that the log does "
            "not know stores it again"
        )
    shown = [f"{done.region}: {verb}"]
    for name, said in facts.items():
        first, *more = _lines(said, " " * 15)
        shown += [f"  {name}".ljust(15) + first[15:], *more]
    return "\n".join(shown)


def _decisions(decisions: Sequence[Decision]) -> str:
    """Show decisions since the backup, first those that a person has to do something about."""
    if not decisions:
        return ""
    ranked = sorted(decisions, key=lambda item: item.state not in _DECISIONS)
    blocks = [
        f"  {item.at:%Y-%m-%d %H:%M} UTC  {item.action}: {item.state}\n    {item.thing}\n"
        + folded(item.detail, "    ")
        for item in ranked
    ]
    return _capped("Decided since the backup:", blocks)


def _orders(orders: Sequence[OrderLine]) -> str:
    blocks = [
        f"  {line.order}\n" + folded(f"{line.state}: {line.detail}", "    ") for line in orders
    ]
    return _capped("Orders opened since the backup:", blocks) if orders else ""


def _documents(lines: Iterable[Line], *, left: bool = False) -> str:
    """Show documents by their states; `left` says that those in question are left behind."""
    parts = list[str]()
    for state, found in groupby(lines, key=lambda line: line.state):
        blocks = [_document(line) for line in found]
        said = _LEFT.get(state, _STATES[state]) if left else _STATES[state]
        parts.append(_capped(folded(f"{state} ({len(blocks)}): {said}"), blocks))
    return "\n\n".join(parts)


def _document(line: Line) -> str:
    shown = f"  {line.document}  {line.kind or '-'}"
    if line.detail is None:
        return shown
    order = f"\n    order {line.order}" if line.order else ""
    return f"{shown}{order}\n{folded(line.detail, '    ')}"


def _capped(title: str, blocks: Sequence[str]) -> str:
    more = len(blocks) - LINES_MAX
    note = [f"  ... and {more} more; --json names all"] if more > 0 else []
    return "\n".join([title, *blocks[:LINES_MAX], *note])
