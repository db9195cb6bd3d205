"""
Whose signature counts for what: one key hands over to the next, and a stolen one is revoked.

A *handover* names the log's size and root at the time when the old key ceased to sign. Who was
given the newer key believes the older one only up to there, and who was given the older one is led
to the newer. An *announcement*, before the handover, leads forward alone. A *revocation* says of a
key up to where what it signed counts; signed by that key itself it says, too, that the key's
handovers are not to be followed. docs/formats.md has the three notes.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keys.errors import IntegrityError
from keys.note import AnyVerifier, Verifier, parse_note

ANNOUNCEMENT = "portvault-log-key/v1"
HANDOVER = "portvault-log-key/v2"
REVOCATION = "portvault-log-key-revoked/v1"

#: Up to which size of each log a key counts; None: of every log, whatever its size.
Bound = Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A log's name, size and root (base64) at the time of a handover."""

    origin: str
    size: int
    root: str


def announcement_text(old: str, new: str) -> str:
    """Return what both keys sign while the new one is going to take over from the old one."""
    return f"{ANNOUNCEMENT}\n{old}\n{new}\n"


def handover_text(old: str, new: str, marks: Sequence[Mark]) -> str:
    """Return what both keys sign when the old one ceases to sign."""
    return f"{HANDOVER}\n{old}\n{new}\n{_lines(marks)}"


def revocation_text(key: str, marks: Sequence[Mark]) -> str:
    """Return what is signed to say that a key counts for nothing beyond the marks."""
    return f"{REVOCATION}\n{key}\n{_lines(marks)}"


def _lines(marks: Sequence[Mark]) -> str:
    return "".join(f"{mark.origin} {mark.size} {mark.root}\n" for mark in marks)


@dataclass(frozen=True, slots=True)
class _Handover:
    old: str
    new: str
    #: None in an announcement.
    marks: Sequence[Mark] | None


@dataclass(frozen=True, slots=True)
class _Revocation:
    key: str
    marks: Sequence[Mark]
    note: str

    def signed_by(self, vkey: str) -> bool:
        with contextlib.suppress(IntegrityError):
            Verifier(vkey).verify(self.note)
            return True
        return False


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys that follow from one that is trusted, that one first, and how far each counts."""

    keys: Mapping[str, Bound]
    #: What the log was at the handovers: a log that counts has these as prefixes.
    marks: Sequence[Mark]
    #: Whether the trusted key itself says that it was stolen: its handovers lead nowhere.
    revoked: bool

    def verify(self, note: str) -> str:
        """Return the text of a note that a key signed which counts for it, or `IntegrityError`."""
        for vkey, bound in self.keys.items():
            with contextlib.suppress(IntegrityError):
                text = Verifier(vkey).verify(note)
                if bound is None or _is_within(text, bound):
                    return text
        raise IntegrityError

    def recognise(self, note: str) -> str:
        """Return the text of a note that any of the keys signed, whatever it counts for now."""
        return AnyVerifier(self.keys).verify(note)


def _is_within(text: str, bound: Mapping[str, int]) -> bool:
    """Whether a text is a checkpoint, or the minimum, of a log within the bound."""
    origin, size, *_ = text.split("\n", 2)
    name = origin.partition("#")[0]
    return name in bound and size.isascii() and size.isdigit() and int(size) <= bound[name]


def trust(vkey: str, notes: Iterable[str], *, announced_counts: bool = False) -> Trust:
    """
    Return what who trusts a key may believe; notes that are forged or unknown add nothing.

    Where two keys claim to follow one, neither is believed. `announced_counts` believes keys that
    are known by an announcement alone (a handover of before there were marks) without a bound.
    """
    Verifier(vkey)
    given = list(notes)
    handovers, revocations = list(_handovers(given)), list(_revocations(given))
    keys: dict[str, Bound] = {vkey: None}
    marks, current = list[Mark](), vkey
    stolen = {found.key for found in revocations if found.signed_by(found.key)}
    while current not in stolen:
        following = {item.new for item in handovers if item.old == current} - set(keys)
        if len(following) != 1:
            break
        (new,) = following
        for item in handovers:
            if (item.old, item.new) == (current, new) and item.marks is not None:
                keys[current] = _least(keys[current], _bound(item.marks))
                marks += item.marks
        keys[new], current = None, new
    _follow_back(vkey, handovers, keys, marks, announced_counts=announced_counts)
    for found in revocations:
        above = [key for key, bound in keys.items() if bound is None and key != found.key]
        if found.key in keys and any(map(found.signed_by, (found.key, *above))):
            keys[found.key] = _least(keys[found.key], _bound(found.marks))
    return Trust(keys, marks, vkey in stolen)


def _follow_back(
    vkey: str,
    handovers: Sequence[_Handover],
    keys: dict[str, Bound],
    marks: list[Mark],
    *,
    announced_counts: bool,
) -> None:
    """Add the keys before one that is trusted: each counts no further than the one after it."""
    waiting: list[tuple[str, Bound]] = [(vkey, keys[vkey])]
    for current, limit in waiting:
        for old in {item.old for item in handovers if item.new == current} - set(keys):
            both = [item for item in handovers if (item.old, item.new) == (old, current)]
            ended = [item.marks for item in both if item.marks is not None]
            bound: Bound = _bound(ended[0]) if ended else {}
            if not ended and announced_counts:
                bound = None
            for found in ended:
                marks += found
                bound = _least(bound, _bound(found))
            keys[old] = _least(limit, bound)
            waiting.append((old, keys[old]))


def _bound(marks: Sequence[Mark]) -> dict[str, int]:
    bound = dict[str, int]()
    for mark in marks:
        bound[mark.origin] = min(mark.size, bound.get(mark.origin, mark.size))
    return bound


def _least(one: Bound, other: Bound) -> Bound:
    if one is None or other is None:
        return other if one is None else one
    return {name: min(one[name], other[name]) for name in one.keys() & other.keys()}


def _handovers(notes: Iterable[str]) -> Iterator[_Handover]:
    """Yield what both of its keys signed: neither of them can name another alone."""
    for note in notes:
        with contextlib.suppress(IntegrityError, ValueError):
            title, old, new, *lines = parse_note(note).text.splitlines()
            if title not in (ANNOUNCEMENT, HANDOVER) or (title == ANNOUNCEMENT and lines):
                continue
            Verifier(old).verify(note)
            Verifier(new).verify(note)
            yield _Handover(old, new, _marks(lines) if title == HANDOVER else None)


def _revocations(notes: Iterable[str]) -> Iterator[_Revocation]:
    for note in notes:
        with contextlib.suppress(IntegrityError, ValueError):
            title, key, *lines = parse_note(note).text.splitlines()
            if title == REVOCATION:
                yield _Revocation(key, _marks(lines), note)


def _marks(lines: Sequence[str]) -> list[Mark]:
    marks = []
    for line in lines:
        origin, size, root = line.split(" ")
        if not (size.isascii() and size.isdigit()):
            raise ValueError("not the size of a log")
        marks.append(Mark(origin, int(size), root))
    return marks
