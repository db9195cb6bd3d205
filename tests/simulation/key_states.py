"""
The states of the protocol's model: what a database, the custodian and an adversary have.

Keys are symbols; see `key_protocol` for what may happen to them.
"""

from typing import NamedTuple

#: Which scopes hang on which leaf.
LEAVES = {"X": ("A", "B"), "Y": ("C",)}
LEAF_OF = {scope: leaf for leaf, scopes in LEAVES.items() for scope in scopes}
FIRST_DOCUMENTS = {1: "A", 2: "A", 3: "C"}
UPLOAD, UPLOAD_SCOPE = 4, "A"
SHREDDABLE = (1, 4)

Key = tuple[str, int]


class Tree(NamedTuple):
    """A database's key tree; also what a snapshot of it holds."""

    generation: int
    revision: int
    root: Key
    leaves: tuple[tuple[str, Key], ...]
    scopes: tuple[tuple[str, Key], ...]
    #: Document, its scope, and the key that it is wrapped under.
    documents: tuple[tuple[int, str, Key], ...]
    dirty_scopes: frozenset[str]
    dirty_leaves: frozenset[str]
    named: int
    retired: frozenset[int]
    activated: frozenset[int]
    gone: frozenset[int]
    #: Document and the generation at which it was shredded.
    shredded: tuple[tuple[int, int], ...]


class Left(NamedTuple):
    """How often what may still happen."""

    seals: int
    failovers: int
    restores: int
    backups: int
    patches: int
    crashes: int


class State(NamedTuple):
    """Everything there is."""

    custodian: frozenset[int]
    primary: Tree
    standby: Tree
    mirror: Tree
    backup: Tree | None
    upload: Key | None
    edges: frozenset[tuple[Key, Key]]
    fresh: int
    claimed: frozenset[int]
    published: frozenset[int]
    left: Left


def edges_of(tree: Tree) -> frozenset[tuple[Key, Key]]:
    """Return the wraps that a tree consists of."""
    leaves, scopes = dict(tree.leaves), dict(tree.scopes)
    found = {(("G", tree.generation), tree.root)}
    found |= {(tree.root, key) for key in leaves.values()}
    found |= {(leaves[LEAF_OF[scope]], key) for scope, key in scopes.items()}
    found |= {(key, ("D", document)) for document, _, key in tree.documents}
    return frozenset(found)


def reachable(generations: frozenset[int], edges: frozenset[tuple[Key, Key]]) -> set[Key]:
    """Return all keys that the generations lead to."""
    below: dict[Key, list[Key]] = {}
    for parent, child in edges:
        below.setdefault(parent, []).append(child)
    known: set[Key] = {("G", generation) for generation in generations}
    waiting = list(known)
    while waiting:
        for child in below.get(waiting.pop(), ()):
            if child not in known:
                known.add(child)
                waiting.append(child)
    return known


def opens(tree: Tree, generations: frozenset[int]) -> set[int]:
    """Return the documents that a tree opens by itself."""
    known = reachable(generations, edges_of(tree))
    return {key[1] for key in known if key[0] == "D"}


def first(left: Left) -> State:
    """Return a tree with documents in it, mirrored and replicated."""
    leaves = tuple((leaf, ("N", place)) for place, leaf in enumerate(LEAVES))
    scopes = tuple((scope, ("S", place)) for place, scope in enumerate(LEAF_OF))
    documents = tuple(
        (document, scope, dict(scopes)[scope]) for document, scope in FIRST_DOCUMENTS.items()
    )
    none: frozenset[int] = frozenset()
    tree = Tree(
        1,
        0,
        ("T", 0),
        leaves,
        scopes,
        documents,
        frozenset(),
        frozenset(),
        0,
        none,
        frozenset({1}),
        none,
        (),
    )
    return State(frozenset({1}), tree, tree, tree, None, None, edges_of(tree), 10, none, none, left)


def copy_of(tree: Tree) -> tuple[object, ...]:
    """Return what the mirror holds of a tree."""
    return (tree.generation, tree.root, tree.leaves, tree.scopes, tree.documents, tree.gone)


def with_scope(tree: Tree, scope: str, key: Key) -> Tree:
    """Give a scope a key, and wrap what hangs on it under that."""
    return tree._replace(
        scopes=tuple((name, key if name == scope else old) for name, old in tree.scopes),
        documents=tuple(
            (document, name, key if name == scope else old)
            for document, name, old in tree.documents
        ),
    )


def without_document(tree: Tree, document: int) -> Tree:
    """Shred a document: its key leaves the tree and its scope is dirty."""
    scope = next(name for held, name, _ in tree.documents if held == document)
    return tree._replace(
        documents=tuple(item for item in tree.documents if item[0] != document),
        dirty_scopes=tree.dirty_scopes | {scope},
        gone=tree.gone | {document},
        shredded=tuple(sorted({**dict(tree.shredded), document: tree.generation}.items())),
    )


def merge(old: Tree, mirror: Tree) -> Tree:
    """Of one generation: the later shape, with the documents of both less what left either."""
    tree, other = (old, mirror) if old.revision >= mirror.revision else (mirror, old)
    gone, scopes = old.gone | mirror.gone, dict(tree.scopes)
    held = {document for document, _, _ in tree.documents}
    added = [item for item in other.documents if item[0] not in held and scopes[item[1]] == item[2]]
    documents = tuple(item for item in (*tree.documents, *added) if item[0] not in gone)
    return tree._replace(documents=documents, gone=gone)
