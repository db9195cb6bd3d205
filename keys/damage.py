"""
Damage at rest: what lies in the database or the bucket and is not what was put there.

A thing is damaged when it does not open though the key above it does, or when it is missing. Only
the topmost is named: what lies below a node that does not open cannot be judged.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from keys.errors import IntegrityError
from keys.segment import Opener, Row
from keys.tree import Node, Scope, WrappedKey

# ---- What lies in a bucket and does not verify: it is passed over, named and counted. -----------

log = logging.getLogger(__name__)

#: So many names are kept of each kind of thing; the count is of all.
NAMED_MAX = 20


class PassedOver:
    """The objects that the last look at each region's bucket could not verify, by their kind."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}

    def note(self, region: str, kind: str, names: Sequence[str]) -> None:
        """Replace what the look before found of a kind, such as `keys/`; says what is new."""
        found = len(names), tuple(names[-NAMED_MAX:])
        if found != self._found.get((region, kind), (0, ())):
            log.warning(
                "%d objects under %s in the bucket of %s do not verify and are passed over: %s",
                len(names),
                kind,
                region,
                ", ".join(found[1]) or "none any more",
            )
        self._found[region, kind] = found

    def count(self, region: str) -> int:
        """Return how many objects of a region's bucket are passed over."""
        return sum(found[0] for (name, _), found in self._found.items() if name == region)

    def names(self, region: str) -> list[str]:
        """Return the names of the newest of them."""
        return [
            item for (name, _), found in self._found.items() if name == region for item in found[1]
        ]


# ---- Damage. ------------------------------------------------------------------------------------

#: What is damaged is named one by one up to so many times.
DAMAGES_MAX = 100


@dataclass(frozen=True, slots=True)
class Damage:
    """
    One thing that is damaged: where it lies, and what is wrong with it.

    In the database `table`, `id` and `column` say where, in the bucket `object`, and `segment`
    where the object is one of the mirror's.
    """

    region: str
    detail: str
    table: str | None = None
    id: str | None = None
    column: str | None = None
    object: str | None = None
    segment: int | None = None

    @property
    def place(self) -> str:
        """Where it is, as one word that no other has in its region."""
        return self.object or "/".join(str(part) for part in (self.table, self.id, self.column))

    def __str__(self) -> str:
        if self.object is not None:
            number = "" if self.segment is None else f" (segment {self.segment})"
            return f"object {self.object}{number} of {self.region} {self.detail}"
        column = f".{self.column}" if self.column else ""
        of = self.region if self.id == self.region else f"{self.id} in {self.region}"
        return f"{self.table}{column} of {of} {self.detail}"


class DamagedError(IntegrityError):
    """What was asked for is damaged where it lies."""

    def __init__(self, what: str, damages: Iterable[Damage]) -> None:
        self.damages = tuple(damages)
        region = self.damages[0].region
        shown = "; ".join(str(damage) for damage in self.damages[:3])
        more = len(self.damages) - 3
        super().__init__(
            f"{what}: {shown}{f'; and {more} more' if more > 0 else ''}; `portvault repair "
            f"--region {region}` mends what can be and says of the rest what to do"
        )


class Met:
    """What was asked for and is damaged: it is said in the process's log, counted, and kept."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._waiting = dict[tuple[str, str], Damage]()

    def note(self, error: DamagedError) -> None:
        """Say where the damage is, to who runs the vault; ids only."""
        log.critical("%s", error)
        self._counts[error.damages[0].region] += 1
        for item in error.damages:
            if len(self._waiting) < DAMAGES_MAX:
                self._waiting.setdefault((item.region, item.place), item)

    def waiting(self) -> list[Damage]:
        """Return what was met and is not written down yet, up to `DAMAGES_MAX`."""
        return list(self._waiting.values())

    def noted(self, damages: Sequence[Damage]) -> None:
        """Keep these no longer: they are written down."""
        for item in damages:
            self._waiting.pop((item.region, item.place), None)

    def count(self, region: str) -> int:
        """Return how often, since the process began."""
        return self._counts[region]


class Finder:
    """Opens the rows of a tree, which come from the root down, and names what does not open."""

    def __init__(self, region: str, root: int, root_key: bytes) -> None:
        self._opener = Opener(region, root, root_key)
        self._region = region
        self._closed = set[int | UUID]()
        self._found: dict[tuple[str, str], Damage] = {}
        #: How many rows cannot be judged, because what is above them does not open.
        self.below = 0

    @property
    def damages(self) -> list[Damage]:
        """What was found so far."""
        return list(self._found.values())

    @property
    def full(self) -> bool:
        """Whether no more is named."""
        return len(self._found) >= DAMAGES_MAX

    def open(self, row: Row) -> None:
        """Open what a row holds; it is named where it does not open, and what is above it does."""
        try:
            self._opener.open(row)
        except IntegrityError:
            self._judge(row)

    def _judge(self, row: Row) -> None:
        above: int | UUID | None
        match row:
            case Node():
                above, table, column = row.parent, "key_node", "page"
            case Scope():
                above, table, column = row.node, "key_scope", "node"
            case WrappedKey():
                above, table, column = row.scope, "data_key", "wrap"
            case _:
                return
        if not isinstance(row, WrappedKey):
            self._closed.add(row.id)
        if above in self._closed:
            self.below += 1
        elif not self.full:
            says = "hangs on a node that is missing" if table == "key_scope" else "does not open"
            damage = Damage(self._region, says, table, str(row.id), column)
            self._found.setdefault((table, str(row.id)), damage)

    def require_sound(self, what: str) -> None:
        """Raise `DamagedError` where something was found."""
        if self._found:
            raise DamagedError(what, self._found.values())


def wrapped(key: WrappedKey) -> Damage:
    """Return the damage of a data key that does not open though its scope does."""
    return Damage(key.region, "does not open", "data_key", str(key.id), "wrap")


def lost(region: str, identity: UUID) -> Damage:
    """Return the damage of a key that is not there, of something that was not shredded."""
    return Damage(region, "is missing", "data_key", str(identity))


def canary(region: str, generation: int) -> Damage:
    """Return the damage of a canary that does not open under its living root key."""
    return Damage(region, "does not open", "key_generation", str(generation), "canary")


def root_wrap(region: str, generation: int) -> Damage:
    """Return the damage of a tree whose root's key does not open."""
    detail = f"does not open under the custodian's root key of generation {generation}"
    return Damage(region, detail, "key_tree", region, "root_wrap")
