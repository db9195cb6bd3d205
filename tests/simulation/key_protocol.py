"""
The seal protocol as a small model, explored in every order of events.

Keys are symbols. `edges` holds every wrap that was ever kept anywhere: a database, its WAL, a
standby, a backup, the mirror; an adversary learns what they lead to from the generations that the
custodian still holds. The tree has a root, two leaves, three scopes and a few documents, which is
enough for each rule to matter: take one away (`without`) and some order of events breaks a promise.

Promises: *Erasure*, what was called sealed is never reachable again; *No orphan*, the primary opens
what it holds; *Promotion*, so does a standby; *Survival*, whatever is restored opens what lives.

`python -m tests.simulation.key_explorer` explores more than the tests have time for.
"""

from collections.abc import Iterator
from typing import Any

from tests.simulation.key_states import (
    LEAF_OF,
    SHREDDABLE,
    UPLOAD,
    UPLOAD_SCOPE,
    State,
    Tree,
    copy_of,
    edges_of,
    merge,
    opens,
    reachable,
    with_scope,
    without_document,
)

RULES = (
    "fresh root key",
    "fresh node key above a dirty scope",
    "fresh scope key",
    "patched leaf is dirty",
    "generations are not linked",
    "mirror before destroy",
    "standby has replayed",
    "foreign key on the scope's epoch",
    "newest tree is restored",
    "log is applied on restore",
    "all is dirty after a restore",
    "lost generations are destroyed",
    "later generations wait for the switch",
    "claims wait for unused generations",
)


class Model:
    """The protocol, without some of its rules."""

    def __init__(self, *without: str) -> None:
        self._without = frozenset(without)

    def _has(self, rule: str) -> bool:
        assert rule in RULES
        return rule not in self._without

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield all that may happen next."""
        yield from self._documents(state)
        yield from self._seal(state)
        yield from self._faults(state)

    def _keep(self, state: State, tree: Tree, **changes: Any) -> State:
        edges = state.edges | edges_of(tree)
        return state._replace(primary=tree, edges=edges, **changes)

    def _documents(self, state: State) -> Iterator[tuple[str, State]]:
        tree = state.primary
        scopes = dict(tree.scopes)
        held = {document for document, _, _ in tree.documents}
        if state.upload is None and ("D", UPLOAD) not in {child for _, child in state.edges}:
            yield "upload begins", state._replace(upload=scopes[UPLOAD_SCOPE])
        if state.upload is not None:
            current = state.upload == scopes[UPLOAD_SCOPE]
            if current or not self._has("foreign key on the scope's epoch"):
                added = (*tree.documents, (UPLOAD, UPLOAD_SCOPE, state.upload))
                yield "upload ends", self._keep(state, tree._replace(documents=added), upload=None)
            else:
                yield "upload is refused", state._replace(upload=None)
        for document in SHREDDABLE:
            if document in held:
                yield f"shred {document}", self._shred(state, document)

    def _shred(self, state: State, document: int) -> State:
        tree = without_document(state.primary, document)
        # The record is published at some later time; here: at once, or never.
        return self._keep(state, tree, published=state.published | {document})

    def _seal(self, state: State) -> Iterator[tuple[str, State]]:
        tree, left = state.primary, state.left
        later = {number for number in tree.retired if number > tree.generation}
        if not tree.named and left.seals and (tree.dirty_scopes or tree.dirty_leaves or later):
            number = max(state.custodian | tree.retired | {tree.generation}) + 1
            yield (
                "name",
                state._replace(
                    primary=tree._replace(named=number), left=left._replace(seals=left.seals - 1)
                ),
            )
        if tree.named and tree.named not in state.custodian:
            edges = state.edges
            if not self._has("generations are not linked"):
                edges |= {(("G", tree.named), ("G", tree.generation))}
            yield "create", state._replace(custodian=state.custodian | {tree.named}, edges=edges)
        for scope in sorted(tree.dirty_scopes) if left.patches else ():
            yield f"patch {scope}", self._patch(state, scope)
        if tree.named in state.custodian:
            yield "switch", self._switch(state)
        if copy_of(state.mirror) != copy_of(tree):
            yield "mirror", state._replace(mirror=tree)
        yield from self._destroy(state)

    def _patch(self, state: State, scope: str) -> State:
        tree = state.primary
        key, leaf = ("S", state.fresh), LEAF_OF[scope]
        dirty = tree.dirty_leaves | {leaf}
        tree = with_scope(tree, scope, key)._replace(
            dirty_leaves=dirty if self._has("patched leaf is dirty") else tree.dirty_leaves,
            dirty_scopes=tree.dirty_scopes - {scope},
            revision=tree.revision + 1,
        )
        left = state.left._replace(patches=state.left.patches - 1)
        return self._keep(state, tree, fresh=state.fresh + 1, left=left)

    def _switch(self, state: State) -> State:
        tree, fresh = state.primary, state.fresh
        for scope in sorted(tree.dirty_scopes):
            if self._has("fresh scope key"):
                tree, fresh = with_scope(tree, scope, ("S", fresh)), fresh + 1
        leaves = dict(tree.leaves)
        if self._has("fresh node key above a dirty scope"):
            for leaf in sorted(tree.dirty_leaves | {LEAF_OF[scope] for scope in tree.dirty_scopes}):
                leaves[leaf], fresh = ("N", fresh), fresh + 1
        root, fresh = (
            (("T", fresh), fresh + 1) if self._has("fresh root key") else (tree.root, fresh)
        )
        tree = tree._replace(
            generation=tree.named,
            revision=tree.revision + 1,
            root=root,
            leaves=tuple(leaves.items()),
            dirty_scopes=frozenset(),
            dirty_leaves=frozenset(),
            named=0,
            retired=tree.retired | {tree.generation},
            activated=tree.activated | {tree.named},
        )
        return self._keep(state, tree, fresh=fresh)

    def _destroy(self, state: State) -> Iterator[tuple[str, State]]:
        tree = state.primary
        mirrored = state.mirror.generation == tree.generation
        if not self._has("mirror before destroy"):
            mirrored = True
        replayed = state.standby.generation == tree.generation
        if not self._has("standby has replayed"):
            replayed = True
        if not mirrored or not replayed:
            return
        for number in sorted(tree.retired):
            if number > tree.generation and self._has("later generations wait for the switch"):
                continue
            after = tree._replace(retired=tree.retired - {number})
            yield (
                f"destroy {number}",
                state._replace(
                    custodian=state.custodian - {number},
                    primary=after,
                    claimed=state.claimed | self._claims(after),
                ),
            )

    def _claims(self, tree: Tree) -> set[int]:
        """Return what is called sealed: whoever may have known its key is destroyed."""
        named = {tree.named} if tree.named else set()
        oldest = min(tree.retired | {tree.generation} | named)
        if self._has("claims wait for unused generations"):
            # An unused generation may hold a tree that was never committed, or is forgotten.
            oldest = max(one for one in tree.activated if one <= oldest)
        return {document for document, generation in tree.shredded if generation < oldest}

    def _faults(self, state: State) -> Iterator[tuple[str, State]]:
        left, tree = state.left, state.primary
        if left.crashes and (tree.named or state.upload):
            retired = tree.retired | ({tree.named} if tree.named else set())
            yield (
                "crash",
                state._replace(
                    primary=tree._replace(named=0, retired=retired),
                    upload=None,
                    left=left._replace(crashes=left.crashes - 1),
                ),
            )
        if state.standby != tree:
            yield "replicate", state._replace(standby=tree)
            if left.failovers:
                spent = state._replace(left=left._replace(failovers=left.failovers - 1))
                yield "fail-over", self.restore(spent, state.standby)
        if left.backups:
            yield (
                "backup",
                state._replace(backup=tree, left=left._replace(backups=left.backups - 1)),
            )
        if left.restores and state.backup is not None:
            spent = state._replace(left=left._replace(restores=left.restores - 1))
            yield "restore", self.restore(spent, state.backup)

    def restore(self, state: State, old: Tree) -> State:
        """Bring an older state of the database up to date, as `portvault restore` does."""
        tree, mirror = old, state.mirror
        if self._has("newest tree is restored"):
            if mirror.generation > old.generation:
                tree = mirror
            elif mirror.generation == old.generation:
                tree = merge(old, mirror)
        for document in sorted(state.published if self._has("log is applied on restore") else ()):
            if document in {held for held, _, _ in tree.documents}:
                tree = without_document(tree, document)
        retired = tree.retired | old.retired | ({tree.named} if tree.named else set())
        if self._has("lost generations are destroyed"):
            retired |= state.custodian
        if self._has("all is dirty after a restore"):
            tree = tree._replace(dirty_scopes=frozenset(LEAF_OF))
        known = dict(state.primary.shredded)
        tree = tree._replace(
            named=0,
            retired=frozenset(retired - {tree.generation}) & state.custodian,
            revision=tree.revision + 1,
            shredded=tuple(
                sorted(
                    {
                        **{d: g for d, g in known.items() if d in state.published},
                        **dict(tree.shredded),
                    }.items()
                )
            ),
        )
        return self._keep(state, tree, standby=tree, upload=None)

    def broken(self, state: State) -> str | None:
        """Return which promise does not hold, if one does not."""
        known = reachable(state.custodian, state.edges)
        if any(("D", document) in known for document in state.claimed):
            return "Erasure"
        tree = state.primary
        if opens(tree, state.custodian) != {document for document, _, _ in tree.documents}:
            return "No orphan"
        held = {document for document, _, _ in state.standby.documents}
        if not held <= opens(state.standby, state.custodian):
            return "Promotion"
        living = {document for document, _, _ in tree.documents}
        for old in (state.standby, state.backup):
            if old is None:
                continue
            restored = opens(self.restore(state, old).primary, state.custodian)
            if not living & {document for document, _, _ in old.documents} <= restored:
                return "Survival"
        return None
