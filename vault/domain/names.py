"""
What principals were called when they acted: a token's label, a person's name, an envelope's role.

Pure. The log holds ids alone, since nothing in it can be taken away; the names stand beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Name:
    """What a principal was called from a moment on, until its next name begins."""

    principal: str
    since: datetime
    name: str


class Names:
    """The names of some principals, each with its time."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._names = dict[str, list[Name]]()
        for name in sorted(names, key=lambda name: name.since):
            self._names.setdefault(name.principal, []).append(name)

    def at(self, principal: str, at: datetime) -> str | None:
        """
        Return what a principal was called at a time; None where no name is known.

        What was before its first name, as the record by which it was made, has that one.
        """
        found = self._names.get(principal)
        if not found:
            return None
        before = [name for name in found if name.since <= at]
        return (before[-1] if before else found[0]).name
