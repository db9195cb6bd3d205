"""A key tree in dictionaries: the pure algorithm at work, with no database around it."""

import random
from dataclasses import replace
from itertools import count
from uuid import UUID

from keys.tree import (
    FULL,
    Node,
    Rekeyed,
    Scope,
    WrappedKey,
    add_child,
    empty_node,
    node_key,
    open_path,
    patch,
    push_down,
    rekey,
)
from keys.wrap import data_key_context, unwrap, wrap

REGION = "uk"


class Forest:
    """A region's tree without a database, and every key that was ever made."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.made = list[bytes]()
        self.root_key = self.fresh()
        self.nodes = {1: empty_node(REGION, 1, 0, self.root_key)}
        self._node_ids = count(2)
        self.scopes: dict[UUID, Scope] = {}
        self.dirty: set[UUID] = set()
        self.wraps: dict[UUID, WrappedKey] = {}
        self.data_keys: dict[UUID, bytes] = {}

    def fresh(self) -> bytes:
        """Return a key that was never there before."""
        self.made.append(random.Random(next(self._numbers)).randbytes(32))
        return self.made[-1]

    @property
    def root(self) -> Node:
        return self.nodes[1]

    def path(self, identity: int) -> list[Node]:
        """Return the path from the root to a node."""
        path = [self.nodes[identity]]
        while (parent := path[0].parent) is not None:
            path.insert(0, self.nodes[parent])
        return path

    def add(self) -> UUID:
        """Add a scope with a data key, where the vault would."""
        if not (free := [node for node in self.nodes.values() if node.used != FULL]):
            self._grow()
            free = [self.root]
        path = self.path(min(free, key=lambda node: (node.level, node.id)).id)
        key = node_key(REGION, path, self.root_key)
        while path[-1].level > 0:
            above, new = path[-1], self.fresh()
            below = empty_node(REGION, next(self._node_ids), above.level - 1, new)
            below.parent, below.slot = above.id, add_child(REGION, above, key, new)
            self.nodes[below.id], key = below, new
            path.append(below)
        scope_key = self.fresh()
        slot = add_child(REGION, path[-1], key, scope_key)
        scope = Scope(UUID(int=next(self._numbers)), 1, path[-1].id, slot)
        self.scopes[scope.id] = scope
        self._wrap(scope, scope_key)
        return scope.id

    def _grow(self) -> None:
        below_key = self.fresh()
        below = empty_node(REGION, next(self._node_ids), self.root.level, below_key)
        push_down(REGION, self.root, self.root_key, below, below_key)
        self._adopt(1, below.id)
        self.nodes[below.id] = below

    def _adopt(self, parent: int, child: int) -> None:
        for node in self.nodes.values():
            if node.parent == parent:
                node.parent = child
        for scope in self.scopes.values():
            if scope.node == parent:
                self.scopes[scope.id] = replace(scope, node=child)

    def add_beside(self, identity: UUID) -> None:
        """Add a data key to a scope."""
        self._wrap(self.scopes[identity], self.scope_key(identity))

    def _wrap(self, scope: Scope, key: bytes) -> None:
        identity, data_key = UUID(int=next(self._numbers)), self.fresh()
        context = data_key_context(REGION, scope.id, scope.epoch, identity)
        wrapped = wrap(key, data_key, context)
        self.wraps[identity] = WrappedKey(identity, REGION, scope.id, scope.epoch, wrapped)
        self.data_keys[identity] = data_key

    def shred(self, identity: UUID) -> None:
        """Take a data key out of its scope."""
        self.dirty.add(self.wraps.pop(identity).scope)
        del self.data_keys[identity]

    def scope_key(self, identity: UUID) -> bytes:
        """Open a scope."""
        scope = self.scopes[identity]
        return open_path(REGION, self.path(scope.node), self.root_key, scope.slot)

    def _held(self, scopes: set[UUID]) -> list[WrappedKey]:
        return [item for item in self.wraps.values() if item.scope in scopes]

    def above(self, leaves: set[int]) -> set[int]:
        """Return the nodes and all above them, and the root."""
        return {1} | {node.id for leaf in leaves for node in self.path(leaf)}

    def patch(self, scopes: set[UUID]) -> None:
        """Re-key dirty scopes ahead of the switch."""
        chosen = [self.scopes[scope] for scope in scopes]
        above = {i: replace(self.nodes[i]) for i in self.above({s.node for s in chosen})}
        done = patch(REGION, above, 1, self.root_key, chosen, self._held(scopes), self.fresh)
        self._write(done)
        self.dirty -= scopes

    def rekey(self) -> Rekeyed:
        """Do what a switch does."""
        dirty = {self.scopes[scope] for scope in self.dirty}
        marked = {node.id for node in self.nodes.values() if node.dirty}
        chosen = self.above({scope.node for scope in dirty} | marked)
        if self.root.level > 0 and self.root.used.bit_count() == 1:
            chosen |= {node.id for node in self.nodes.values() if node.parent == 1}
        above = {i: replace(self.nodes[i]) for i in chosen}
        new_root_key = self.fresh()
        wraps = self._held(self.dirty)
        done = rekey(REGION, above, 1, self.root_key, dirty, wraps, new_root_key, self.fresh)
        for gone in done.collapsed:
            self._adopt(gone, 1)
        self.root_key = new_root_key
        self._write(done)
        self.dirty = set()
        return done

    def _write(self, done: Rekeyed) -> None:
        for node in done.nodes:
            kept = self.nodes[node.id]
            self.nodes[node.id] = replace(node, parent=kept.parent, slot=kept.slot)
        for number in done.dropped_nodes:
            del self.nodes[number]
        for scope in done.scopes:
            self.scopes[scope.id] = replace(self.scopes[scope.id], epoch=scope.epoch)
        for identity in done.dropped_scopes:
            del self.scopes[identity]
        self.wraps |= {item.id: item for item in done.wraps}

    def keys(self) -> dict[object, bytes]:
        """Return the key of every node and scope, as they open now."""
        opened: dict[object, bytes] = {
            node: node_key(REGION, self.path(node), self.root_key) for node in self.nodes
        }
        return opened | {scope: self.scope_key(scope) for scope in self.scopes}

    def check(self) -> None:
        """Every data key opens, every slot has one child, and levels fall by one."""
        taken = [(node.parent, node.slot) for node in self.nodes.values() if node.id != 1]
        taken += [(scope.node, scope.slot) for scope in self.scopes.values()]
        assert len(taken) == len(set(taken))
        for node in self.nodes.values():
            slots = {slot for parent, slot in taken if parent == node.id}
            assert node.used == sum(1 << slot for slot in slots if slot is not None)
            if node.parent is not None:
                assert node.level == self.nodes[node.parent].level - 1
        assert all(self.nodes[scope.node].level == 0 for scope in self.scopes.values())
        keys = {scope: self.scope_key(scope) for scope in self.scopes}
        for item in self.wraps.values():
            assert item.scope_epoch == self.scopes[item.scope].epoch
            context = data_key_context(REGION, item.scope, item.scope_epoch, item.id)
            assert unwrap(keys[item.scope], item.wrap, context) == self.data_keys[item.id]
