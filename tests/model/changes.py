"""What may happen to a region's rows, each a transaction: from one database to the next."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.model.states import NOWHERE, ROOT, Database, Key, Node, Scope, Wrap

Rules = frozenset[str]


@dataclass
class Tree:
    """A tree that is being changed; `fresh` makes keys that nobody ever had."""

    revision: int
    timeline: int
    nodes: dict[int, Node]
    scopes: dict[int, Scope]
    wraps: dict[int, Wrap]

    @classmethod
    def of(cls, database: Database) -> "Tree":
        """Begin to change a database's tree, at the next revision."""
        return cls(
            database.revision + 1,
            database.timeline,
            {node.id: node for node in database.nodes},
            {scope.id: scope for scope in database.scopes},
            {wrap.document: wrap for wrap in database.wraps},
        )

    def fresh(self, kind: str, identity: int) -> Key:
        """Return a fresh key."""
        return (kind, identity, self.revision, self.timeline)

    def into(self, database: Database) -> Database:
        """Return the database with the changed tree."""
        return database._replace(
            revision=self.revision,
            nodes=tuple(sorted(self.nodes.values())),
            scopes=tuple(sorted(self.scopes.values())),
            wraps=tuple(sorted(self.wraps.values())),
        )

    def children(self, node: int) -> int:
        """Return how many keys a node's page holds."""
        below = [item for item in self.nodes.values() if item.parent == node]
        return len(below) + len([item for item in self.scopes.values() if item.node == node])

    def rekey(self, scope: Scope, *, fresh: bool = True) -> None:
        """Give a scope a fresh key and wrap what it holds again; drop it when it holds nothing."""
        held = [wrap for wrap in self.wraps.values() if wrap.scope == scope.id]
        if not held:
            del self.scopes[scope.id]
            return
        key, epoch = self.fresh("s", scope.id) if fresh else scope.key, scope.epoch + 1
        self.scopes[scope.id] = scope._replace(key=key, epoch=epoch, dirty=False)
        for wrap in held:
            self.wraps[wrap.document] = wrap._replace(epoch=epoch, under=key)

    def collapse(self) -> None:
        """Let a root with one node below it take over that node's page."""
        below = [node for node in self.nodes.values() if node.parent == ROOT]
        if len(below) != 1 or self.children(ROOT) != 1:
            return
        del self.nodes[below[0].id]
        for scope in list(self.scopes.values()):
            if scope.node == below[0].id:
                self.scopes[scope.id] = scope._replace(node=ROOT)


def switch(database: Database, number: int, rules: Rules) -> Database:
    """Give all that is dirty, and everything above it, a fresh key; the root under `number`."""
    tree = Tree.of(database)
    tree.collapse()
    touched = {ROOT} | {node.id for node in tree.nodes.values() if node.dirty}
    for scope in [scope for scope in tree.scopes.values() if scope.dirty]:
        touched.add(scope.node)
        tree.rekey(scope, fresh="fresh scope keys" in rules)
    for identity in sorted(touched, reverse=True):
        node = tree.nodes[identity]
        if identity != ROOT and not tree.children(identity):
            del tree.nodes[identity]
            continue
        rule = "fresh root key" if identity == ROOT else "fresh node keys"
        key = tree.fresh("n", identity) if rule in rules else node.key
        tree.nodes[identity] = node._replace(key=key, dirty=False)
    states = dict(database.generations)
    states[database.generation], states[number] = "retired", "active"
    return tree.into(database)._replace(
        generation=number, generations=tuple(sorted(states.items()))
    )


def patch(database: Database, scope: Scope, rules: Rules) -> Database:
    """Give a dirty scope a fresh key before the switch; its leaf keeps its own and is dirty."""
    tree = Tree.of(database)
    tree.rekey(scope)
    leaf = tree.nodes[scope.node]
    tree.nodes[leaf.id] = leaf._replace(dirty=leaf.dirty or "patched leaf is dirty" in rules)
    return tree.into(database)


def add_order(database: Database, identity: int, document: int, rules: Rules) -> Database:
    """Add a scope with its first document, in a leaf of its own; a full root is pushed down."""
    tree = Tree.of(database)
    if len(tree.nodes) == 1 and tree.scopes:
        below = tree.fresh("n", 1)
        if "push down under a fresh key" not in rules:
            below = tree.nodes[ROOT].key
            tree.nodes[ROOT] = tree.nodes[ROOT]._replace(key=tree.fresh("n", ROOT))
        tree.nodes[1] = Node(1, below, ROOT)
        for scope in list(tree.scopes.values()):
            tree.scopes[scope.id] = scope._replace(node=1)
    leaf = max(tree.nodes) + 1
    tree.nodes[leaf] = Node(leaf, tree.fresh("n", leaf), ROOT)
    made = Scope(identity, tree.fresh("s", identity), 1, leaf)
    tree.scopes[identity] = made
    tree.wraps[document] = Wrap(document, identity, 1, made.key)
    return tree.into(database)._replace(stored=database.stored | {document})


def upload(database: Database, wrap: Wrap) -> Database:
    """Keep a data key, and say that its document is stored."""
    wraps = tuple(sorted((*database.wraps, wrap)))
    return database._replace(wraps=wraps, stored=database.stored | {wrap.document})


def move(database: Database, document: int, target: Scope, rules: Rules) -> Database:
    """Wrap a data key under another scope."""
    tree = Tree.of(database)
    wrap = tree.wraps[document]
    source = tree.scopes[wrap.scope]
    tree.scopes[source.id] = source._replace(dirty=source.dirty or "a move dirties" in rules)
    tree.wraps[document] = Wrap(document, target.id, target.epoch, target.key)
    return tree.into(database)


def shred(database: Database, documents: Iterable[int], rules: Rules) -> Database:
    """Take data keys out of the tree, leave their scopes dirty, and note the generation."""
    shredded = frozenset(documents)
    note = database.generation
    if "note at the shred" not in rules:
        # The generation was read when the request came, and a seal was faster.
        note = max((number for number in dict(database.generations) if number < note), default=note)
    left = [wrap for wrap in database.wraps if wrap.document in shredded]
    dirty = {wrap.scope for wrap in left}
    return database._replace(
        wraps=tuple(wrap for wrap in database.wraps if wrap not in left),
        scopes=tuple(
            scope._replace(dirty=scope.dirty or scope.id in dirty) for scope in database.scopes
        ),
        stored=database.stored - shredded,
        noted=tuple(sorted({**dict(database.noted), **dict.fromkeys(shredded, note)}.items())),
        gone=database.gone
        | ({(wrap.document, note) for wrap in left} if "tombstones" in rules else set()),
        log=database.log | shredded,
    )


def restored(
    database: Database,
    mirror: Database,
    custodian: frozenset[int],
    published: frozenset[int],
    rules: Rules,
) -> Database | None:
    """Return the newest tree that is known, in an older database; None when it is refused."""
    merged = _merged(database, mirror, custodian, rules)
    if merged is None:
        return None
    merged = merged._replace(
        generations=_generations(database, mirror, custodian, merged.generation),
        gone=database.gone | mirror.gone,
        revision=merged.revision + 1,
        copies=max(database.copies, mirror.copies),
        nodes=tuple(
            node._replace(dirty=node.dirty or "dirty nodes after restore" in rules)
            for node in merged.nodes
        ),
        scopes=tuple(
            scope._replace(dirty=scope.dirty or "dirty scopes after restore" in rules)
            for scope in merged.scopes
        ),
    )
    return _repeat_shreds(merged, published, rules)


def _merged(
    database: Database, mirror: Database, custodian: frozenset[int], rules: Rules
) -> Database | None:
    """Return the database with the shape of one of both, and the data keys that belong to it."""
    mine = (database.generation, database.revision)
    if mine >= (mirror.generation, mirror.revision) or "later tree" not in rules:
        shape, other, clean = database, mirror, False
        if database.generation not in custodian:
            return None
    else:
        # The mirror does not say what is dirty.
        shape, other, clean = mirror, database, True
    epochs = {(scope.id, scope.epoch) for scope in shape.scopes}
    gone = {document for document, _ in database.gone | mirror.gone}
    wraps = {wrap.document: wrap for wrap in shape.wraps}
    if database.generation == mirror.generation and "merge keys" in rules:
        more = [wrap for wrap in other.wraps if (wrap.scope, wrap.epoch) in epochs]
        wraps = {wrap.document: wrap for wrap in more} | wraps
    if database.generation == mirror.generation or "tombstones always" in rules:
        wraps = {document: wrap for document, wrap in wraps.items() if document not in gone}
    return database._replace(
        generation=shape.generation,
        revision=shape.revision,
        nodes=tuple(node._replace(dirty=node.dirty and not clean) for node in shape.nodes),
        scopes=tuple(scope._replace(dirty=scope.dirty and not clean) for scope in shape.scopes),
        wraps=tuple(sorted(wraps.values())),
    )


def _generations(
    database: Database, mirror: Database, custodian: frozenset[int], active: int
) -> tuple[tuple[int, str], ...]:
    states = dict(mirror.generations) | dict(database.generations)
    states |= {number: state for number, state in mirror.generations if state == "destroyed"}
    states |= dict.fromkeys(custodian - set(states), "retired")
    states = {
        number: state if state == "destroyed" else "retired" for number, state in states.items()
    }
    return tuple(sorted((states | {active: "active"}).items()))


def _repeat_shreds(database: Database, published: frozenset[int], rules: Rules) -> Database:
    """Shred again what the log, or its own row, says was shredded, and what has no key any more."""
    kept = {wrap.document for wrap in database.wraps}
    again = kept & set(dict(database.noted))
    if "log on restore" in rules:
        again |= kept & published
        if "log without rows" not in rules:
            again &= database.stored | set(dict(database.noted))
    before = dict(database.noted)
    lost = database.stored - kept
    database = shred(database, again, rules)
    noted = dict(database.noted) | dict.fromkeys(lost, database.generation)
    noted |= dict.fromkeys(before, database.generation) if "notes anew" in rules else before
    return database._replace(
        stored=database.stored - lost,
        noted=tuple(sorted(noted.items())),
        log=database.log | published,
    )


def adopt(database: Database, custodian: frozenset[int]) -> Database:
    """Retire what was named and never used, and what only the custodian knows."""
    states = dict.fromkeys(custodian, "retired") | dict(database.generations)
    states = {
        number: "retired" if state == "intended" else state for number, state in states.items()
    }
    return database._replace(generations=tuple(sorted(states.items())))


def set_state(database: Database, number: int, state: str) -> Database:
    """Write down the state of a generation."""
    states = dict(database.generations) | {number: state}
    return database._replace(generations=tuple(sorted(states.items())))


def forget_gone(database: Database) -> Database:
    """Forget which data keys left the tree before its present generation, once nothing is due."""
    if database.retired:
        return database
    gone = frozenset(item for item in database.gone if item[1] >= database.generation)
    return database._replace(gone=gone)


def planted(place: str) -> Database:
    """Return a small region: all in the root, in two leaves, or both scopes in one leaf."""
    root = Node(ROOT, ("n", ROOT, 1, 0), NOWHERE)
    leaves = {"flat": (), "one leaf": (1,), "two leaves": (1, 2)}[place]
    nodes = (root, *(Node(leaf, ("n", leaf, 1, 0), ROOT) for leaf in leaves))
    where = {"flat": (ROOT, ROOT), "one leaf": (1, 1), "two leaves": (1, 2)}[place]
    scopes = tuple(
        Scope(identity, ("s", identity, 1, 0), 1, node) for identity, node in enumerate(where)
    )
    # Documents 0 and 1 hang on scope 0, document 2 on scope 1.
    wraps = tuple(
        Wrap(document, scope, 1, scopes[scope].key) for document, scope in ((0, 0), (1, 0), (2, 1))
    )
    return Database(1, nodes, scopes, wraps, ((1, "active"),), frozenset({0, 1, 2}))
