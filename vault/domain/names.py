"""
What principals were called when they acted: a token's label, a person's name, an envelope's role.

Pure. The log holds ids alone, since nothing in it can be taken away; the names stand beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Name:
    """What a principal was called from a moment on, until its next name begins."""

    principal: str
    since: datetime
    name: str


#: Each field of an answer that holds a principal, with those that say when: the first one that is
#: there counts. Beside it stands what the principal was called then, under `called`.
ACTORS = {
    "requested_by": ("requested_at",),
    "approved_by": ("approved_at", "released_at"),
    "ended_by": ("ended_at",),
    "sealed_by": ("sealed_at",),
    "opened_by": ("opened_at",),
    "revoked_by": ("revoked_at",),
    "placed_by": ("placed_at",),
    "released_by": ("released_at",),
    "given_by": ("given_at",),
    "created_by": ("created_at",),
    "shred_approved_by": ("beyond_use_since",),
    #: Of a restriction.
    "by": ("since",),
    #: Whose token it is.
    "person": ("created_at",),
}


def called(field: str) -> str:
    """Return the field that holds what the principal of a field was called."""
    return f"{field}_name"


def actors_of(shown: object) -> set[str]:
    """Return the principals in an answer, however deep they stand."""
    if isinstance(shown, list):
        return {who for item in shown for who in actors_of(item)}
    if not isinstance(shown, dict):
        return set()
    found = {value for name, value in shown.items() if name in ACTORS and isinstance(value, str)}
    return found.union(*(actors_of(value) for value in shown.values()))


class Names:
    """The names of some principals, each with its time."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._names = dict[str, list[Name]]()
        for name in sorted(names, key=lambda name: name.since):
            self._names.setdefault(name.principal, []).append(name)

    def beside(self, shown: Any) -> Any:
        """Return an answer in which each principal has its name of then behind it."""
        if isinstance(shown, list):
            return [self.beside(item) for item in shown]
        if not isinstance(shown, dict):
            return shown
        named = dict[str, Any]()
        for field, value in shown.items():
            named[field] = self.beside(value)
            if field in ACTORS and isinstance(value, str):
                at = next((shown[name] for name in ACTORS[field] if shown.get(name)), None)
                named[called(field)] = self.at(value, _time(at)) if at else None
        return named

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


def _time(at: str | datetime) -> datetime:
    return at if isinstance(at, datetime) else datetime.fromisoformat(at)
