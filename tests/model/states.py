"""
What the model is made of: keys as symbols, the tree as rows, and everything that was ever written.

A key is a tuple: `("g", number)` a generation, `("n", node, revision, timeline)` a node's,
`("s", scope, revision, timeline)` a scope's, `("d", document)` a document's. A fresh key takes the
revision of the tree at that moment and the timeline, a number that each fail-over and each restore
raises, so no two fresh keys are one. Nothing is encrypted: who has a key has what was ever sealed
under it, and an edge says from which key to which.

Bounds keep the world small: three documents and two scopes to begin with, an upload, an order, and
a budget that says how often each thing may happen.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

Key = tuple[object, ...]
Edge = tuple[Key, Key]

ROOT = 0
NOWHERE = -1


class Node(NamedTuple):
    """A node; its page holds the keys of all children that name it, as they are now."""

    id: int
    key: Key
    parent: int
    dirty: bool = False


class Scope(NamedTuple):
    """A scope, its key in the page of a node."""

    id: int
    key: Key
    epoch: int
    node: int
    dirty: bool = False


class Wrap(NamedTuple):
    """A data key, wrapped under what was its scope's key at an epoch."""

    document: int
    scope: int
    epoch: int
    under: Key


class _Rows(NamedTuple):
    generation: int
    nodes: tuple[Node, ...]
    scopes: tuple[Scope, ...]
    wraps: tuple[Wrap, ...]
    #: Number and state of each generation: intended, active, retired, destroyed.
    generations: tuple[tuple[int, str], ...]
    #: Documents that say they are stored.
    stored: frozenset[int]
    #: The generation that each shredded document noted.
    noted: tuple[tuple[int, int], ...] = ()
    #: Data keys that left the tree, and under which generation.
    gone: frozenset[tuple[int, int]] = frozenset()
    #: The access log's own copy of the shreds.
    log: frozenset[int] = frozenset()
    revision: int = 1
    timeline: int = 0
    #: The last number that a copy in the bucket was to have.
    copies: int = 1


class Database(_Rows):
    """All that one state of the database says of a region."""

    def __hash__(self) -> int:
        # Millions of look-ups ask for it, so it is kept.
        if "known" not in self.__dict__:
            self.__dict__["known"] = super().__hash__()
        known: int = self.__dict__["known"]
        return known

    def node(self, identity: int) -> Node:
        """Return a node."""
        return next(node for node in self.nodes if node.id == identity)

    def scope(self, identity: int) -> Scope | None:
        """Return a scope, None when it was dropped."""
        return next((scope for scope in self.scopes if scope.id == identity), None)

    @property
    def dirty(self) -> bool:
        """Whether a scope or a node waits for its fresh key."""
        return any(item.dirty for item in self.scopes) or any(item.dirty for item in self.nodes)

    @property
    def retired(self) -> list[int]:
        """The generations that are to be destroyed, below the tree's own."""
        return [
            number
            for number, state in self.generations
            if state == "retired" and number < self.generation
        ]

    @property
    def destroyed_up_to(self) -> int:
        """The last of the generations that are all destroyed."""
        living = min(number for number, state in self.generations if state != "destroyed")
        below = [number for number, _ in self.generations if number < living]
        return max(below, default=-1)


class State(NamedTuple):
    """One state of the world."""

    primary: Database
    standby: Database
    mirror: Database
    custodian: frozenset[int]
    #: A bit for every edge that was ever written, wherever.
    written: int
    backups: tuple[Database, ...] = ()
    #: What the bucket holds of the log.
    published: frozenset[int] = frozenset()
    #: Documents whose shred was ever acknowledged, on whatever timeline.
    shredded: frozenset[int] = frozenset()
    #: What the system has ever called sealed.
    claimed: frozenset[int] = frozenset()
    #: The seal that is going on: the last step it did and the generation it makes.
    seal: tuple[str, int] | None = None
    #: The generation that the last switch made, as the process that did it remembers.
    remembered: int = 0
    #: An upload that has its wrap and is not committed.
    upload: Wrap | None = None
    budget: tuple[tuple[str, int], ...] = ()

    def left(self, name: str) -> int:
        """Return how often something may still happen."""
        return next((count for key, count in self.budget if key == name), 0)

    def spend(self, name: str) -> tuple[tuple[str, int], ...]:
        """Return the budget after it happened."""
        return tuple((key, count - (key == name)) for key, count in self.budget)


_BITS: dict[Edge, int] = {}
_EDGES: list[Edge] = []


@cache
def edges_of(database: Database) -> tuple[Edge, ...]:
    """Return every edge that a state of the database holds."""
    found: list[Edge] = [(("g", database.generation), database.node(ROOT).key)]
    keys = {node.id: node.key for node in database.nodes}
    found += [(keys[node.parent], node.key) for node in database.nodes if node.id != ROOT]
    found += [(keys[scope.node], scope.key) for scope in database.scopes]
    found += [(wrap.under, ("d", wrap.document)) for wrap in database.wraps]
    return tuple(found)


def mask_of(edges: Iterable[Edge]) -> int:
    """Return the edges as bits."""
    mask = 0
    for edge in edges:
        if edge not in _BITS:
            _BITS[edge] = len(_EDGES)
            _EDGES.append(edge)
        mask |= 1 << _BITS[edge]
    return mask


@cache
def mask(database: Database) -> int:
    """Return all edges of a state of the database as bits."""
    return mask_of(edges_of(database))


def edges_in(written: int) -> Iterator[Edge]:
    """Yield the edges of bits."""
    while written:
        lowest = written & -written
        yield _EDGES[lowest.bit_length() - 1]
        written ^= lowest


@cache
def reachable(custodian: frozenset[int], written: int) -> frozenset[Key]:
    """Return every key that whoever has the custodian and all that was written can learn."""
    below: dict[Key, list[Key]] = {}
    for parent, child in edges_in(written):
        below.setdefault(parent, []).append(child)
    known: set[Key] = {("g", number) for number in custodian}
    waiting = list(known)
    while waiting:
        fresh = [key for key in below.get(waiting.pop(), ()) if key not in known]
        known.update(fresh)
        waiting += fresh
    return frozenset(known)


@cache
def readable(database: Database, custodian: frozenset[int]) -> frozenset[int]:
    """Return the documents whose keys open along their path in this database alone."""
    if database.generation not in custodian:
        return frozenset()
    scopes = {scope.id: scope for scope in database.scopes}
    return frozenset(
        wrap.document
        for wrap in database.wraps
        if wrap.scope in scopes and wrap.under == scopes[wrap.scope].key
    )


def clear_caches() -> None:
    """Forget what was computed; the next exploration has other states."""
    for cached in (edges_of, mask, reachable, readable):
        cached.cache_clear()
    _BITS.clear()
    _EDGES.clear()
