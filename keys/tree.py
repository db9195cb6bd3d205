"""
The tree's algorithm: open a path, add a scope, grow. Pure, no I/O; what a seal does is `rekey`.

A node keeps its children's keys as one page, encrypted under the node's own key, which stands in
its parent's page. Level 0 holds scopes. A full root pushes its page down into a new child, so the
tree grows by whole levels and the root stays the same node.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from uuid import UUID

from keys.errors import IntegrityError
from keys.wrap import (
    EMPTY,
    PAGE_BYTES,
    SLOTS,
    child_key,
    data_key_context,
    decrypt_page,
    encrypt_page,
    page_context,
    set_child_key,
    unwrap,
    wrap,
)

FULL = (1 << SLOTS) - 1


@dataclass(slots=True)
class Node:
    """A node as its row says; `parent` and `slot` are None at the root."""

    id: int
    level: int
    epoch: int
    parent: int | None
    slot: int | None
    used: int
    page: bytes = field(repr=False)
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope as its row says: where in the tree its key stands, and at which epoch."""

    id: UUID
    epoch: int
    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is kept: wrapped under its scope at an epoch."""

    id: UUID
    region: str
    scope: UUID
    scope_epoch: int
    wrap: bytes = field(repr=False)


def free_slot(used: int) -> int:
    """Return the lowest free slot of a page that is not full."""
    return (~used & (used + 1)).bit_length() - 1


def empty_node(region: str, identity: int, level: int, key: bytes) -> Node:
    """Return a node without children, its page encrypted under its key at epoch 1."""
    page = encrypt_page(key, bytes(PAGE_BYTES), page_context(region, identity, 1))
    return Node(identity, level, 1, None, None, 0, page)


def add_child(region: str, node: Node, node_key: bytes, key: bytes) -> int:
    """Put a child's key into the node's lowest free slot and encrypt the page; return the slot."""
    context = page_context(region, node.id, node.epoch)
    page = decrypt_page(node_key, node.page, context)
    slot = free_slot(node.used)
    set_child_key(page, slot, key)
    node.used |= 1 << slot
    node.page = encrypt_page(node_key, page, context)
    return slot


def push_down(region: str, root: Node, root_key: bytes, below: Node, key: bytes) -> None:
    """
    Make room in a full root: `below` takes over its page under a fresh `key`, in its first slot.

    The children's rows must move to `below` in the same transaction. The old page lies in backups
    under the root's key, which goes at the next seal.
    """
    page = decrypt_page(root_key, root.page, page_context(region, root.id, root.epoch))
    below.level, below.used, below.parent, below.slot = root.level, root.used, root.id, 0
    below.page = encrypt_page(key, bytes(page), page_context(region, below.id, below.epoch))
    only = bytearray(PAGE_BYTES)
    set_child_key(only, 0, key)
    root.level, root.used = root.level + 1, 1
    root.page = encrypt_page(root_key, bytes(only), page_context(region, root.id, root.epoch))


def open_path(region: str, path: Sequence[Node], root_key: bytes, slot: int) -> bytes:
    """
    Return the key in `slot` of the last node of a path that starts at the root.

    Raises `IntegrityError` unless every page opens and every node stands where its parent says.
    """
    key = node_key(region, path, root_key)
    last = path[-1]
    return child_key(decrypt_page(key, last.page, page_context(region, last.id, last.epoch)), slot)


def node_key(region: str, path: Sequence[Node], root_key: bytes) -> bytes:
    """Return the key of the last node of a path that starts at the root."""
    key = root_key
    for above, below in pairwise(path):
        if below.parent != above.id or below.slot is None:
            raise IntegrityError
        page = decrypt_page(key, above.page, page_context(region, above.id, above.epoch))
        key = child_key(page, below.slot)
    return key


# ---- Re-keying: what a seal does to the tree, and what it does beforehand. Pure, no I/O. --------
#
# `rekey` gives every dirty scope, every node above one, and the root a fresh key; what lies below
# an untouched child is not touched. Nodes that end up empty go, and an empty root is a leaf again.
# A root with a single node below it takes over that node's page, so the tree shrinks by whole
# levels.
#
# When many scopes are dirty, a seal re-keys most of them beforehand, a part at a time: `patch`
# gives scopes fresh keys but leaves their nodes' own keys, and marks those nodes dirty. What was
# written before stays readable under the old node keys until `rekey` replaces them.


@dataclass(slots=True)
class Rekeyed:
    """What a seal writes."""

    nodes: list[Node] = field(default_factory=list)
    dropped_nodes: list[int] = field(default_factory=list)
    #: Nodes whose children the root took over; they are among the dropped ones.
    collapsed: list[int] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    dropped_scopes: list[UUID] = field(default_factory=list)
    wraps: list[WrappedKey] = field(default_factory=list)


def rekey(
    region: str,
    nodes: Mapping[int, Node],
    root: int,
    root_key: bytes,
    scopes: Iterable[Scope],
    wraps: Iterable[WrappedKey],
    new_root_key: bytes,
    fresh: Callable[[], bytes],
) -> Rekeyed:
    """
    Give all that is dirty, and everything above it, a fresh key from `fresh`.

    `new_root_key` is wrapped under the new generation already. `nodes` are the root, every dirty
    node, every node above a dirty one or a dirty scope, and the root's only child where it has but
    one; `wraps` are all the data keys of the dirty scopes. A dirty scope without data keys is
    dropped.
    """
    pages = _decrypt_pages(region, nodes, root, root_key)
    done = Rekeyed()
    nodes = dict(nodes)
    scopes = _collapse(nodes, pages, root, scopes, done)
    _rekey_scopes(region, nodes, pages, scopes, wraps, fresh, done)
    _rekey_nodes(region, nodes, pages, root, fresh, done)
    if nodes[root].used == 0:
        nodes[root].level = 0
    _encrypt_anew(region, nodes[root], pages[root], new_root_key, done)
    return done


def patch(
    region: str,
    nodes: Mapping[int, Node],
    root: int,
    root_key: bytes,
    scopes: Sequence[Scope],
    wraps: Iterable[WrappedKey],
    fresh: Callable[[], bytes],
) -> Rekeyed:
    """
    Give dirty scopes a fresh key, and mark the nodes they stand in dirty instead.

    The pages are encrypted again under the keys their nodes have; only `rekey` makes what they held
    unreadable. Takes what `rekey` takes.
    """
    keys: dict[int, bytes] = {}
    pages = _decrypt_pages(region, nodes, root, root_key, keys)
    done = Rekeyed()
    _rekey_scopes(region, nodes, pages, scopes, wraps, fresh, done)
    for identity in sorted({scope.node for scope in scopes}):
        node = nodes[identity]
        context = page_context(region, node.id, node.epoch)
        node.page = encrypt_page(keys[identity], bytes(pages[identity]), context)
        node.dirty = True
        done.nodes.append(node)
    return done


def _decrypt_pages(
    region: str,
    nodes: Mapping[int, Node],
    root: int,
    root_key: bytes,
    keys: dict[int, bytes] | None = None,
) -> dict[int, bytearray]:
    """Open every page from the root down; `keys` receives the nodes' own keys."""
    keys = {} if keys is None else keys
    keys[root] = root_key
    pages: dict[int, bytearray] = {}
    for node in sorted(nodes.values(), key=lambda node: -node.level):
        if node.id != root:
            if node.parent not in pages or node.slot is None:
                raise IntegrityError
            keys[node.id] = child_key(pages[node.parent], node.slot)
        context = page_context(region, node.id, node.epoch)
        pages[node.id] = decrypt_page(keys[node.id], node.page, context)
    return pages


def _collapse(
    nodes: dict[int, Node],
    pages: dict[int, bytearray],
    root: int,
    scopes: Iterable[Scope],
    done: Rekeyed,
) -> list[Scope]:
    """Let a root with one node below it take over its page; returns where the scopes are now."""
    moved = list(scopes)
    top = nodes[root]
    while top.level > 0 and top.used.bit_count() == 1:
        only = next((node for node in nodes.values() if node.parent == root), None)
        if only is None:
            break
        pages[root] = pages.pop(only.id)
        top.level, top.used = only.level, only.used
        for node in nodes.values():
            if node.parent == only.id:
                node.parent = root
        moved = [replace(scope, node=root) if scope.node == only.id else scope for scope in moved]
        del nodes[only.id]
        done.collapsed.append(only.id)
        done.dropped_nodes.append(only.id)
    return moved


def _rekey_scopes(
    region: str,
    nodes: Mapping[int, Node],
    pages: dict[int, bytearray],
    scopes: Iterable[Scope],
    wraps: Iterable[WrappedKey],
    fresh: Callable[[], bytes],
    done: Rekeyed,
) -> None:
    by_scope: dict[UUID, list[WrappedKey]] = {}
    for wrapped in wraps:
        by_scope.setdefault(wrapped.scope, []).append(wrapped)
    for scope in scopes:
        _rekey_scope(region, nodes, pages, scope, by_scope.get(scope.id, []), fresh, done)


def _rekey_scope(
    region: str,
    nodes: Mapping[int, Node],
    pages: dict[int, bytearray],
    scope: Scope,
    wraps: list[WrappedKey],
    fresh: Callable[[], bytes],
    done: Rekeyed,
) -> None:
    page = pages[scope.node]
    if not wraps:
        set_child_key(page, scope.slot, EMPTY)
        nodes[scope.node].used &= ~(1 << scope.slot)
        done.dropped_scopes.append(scope.id)
        return
    old, new = child_key(page, scope.slot), fresh()
    # A random epoch: another primary that counts on from the same one never meets it.
    epoch = int.from_bytes(fresh()[:8]) >> 1
    set_child_key(page, scope.slot, new)
    done.scopes.append(Scope(scope.id, epoch, scope.node, scope.slot))
    for item in wraps:
        context = data_key_context(region, scope.id, item.scope_epoch, item.id)
        key = unwrap(old, item.wrap, context)
        wrapped = wrap(new, key, data_key_context(region, scope.id, epoch, item.id))
        done.wraps.append(WrappedKey(item.id, region, scope.id, epoch, wrapped))


def _rekey_nodes(
    region: str,
    nodes: Mapping[int, Node],
    pages: dict[int, bytearray],
    root: int,
    fresh: Callable[[], bytes],
    done: Rekeyed,
) -> None:
    """Bottom up: drop what is empty, else put a fresh key into the parent and encrypt the page."""
    for node in sorted(nodes.values(), key=lambda node: node.level):
        if node.id == root:
            continue
        if node.parent is None or node.slot is None:
            raise IntegrityError
        if node.used == 0:
            set_child_key(pages[node.parent], node.slot, EMPTY)
            nodes[node.parent].used &= ~(1 << node.slot)
            done.dropped_nodes.append(node.id)
            continue
        key = fresh()
        set_child_key(pages[node.parent], node.slot, key)
        _encrypt_anew(region, node, pages[node.id], key, done)


def _encrypt_anew(region: str, node: Node, page: bytearray, key: bytes, done: Rekeyed) -> None:
    node.epoch += 1
    node.dirty = False
    node.page = encrypt_page(key, bytes(page), page_context(region, node.id, node.epoch))
    done.nodes.append(node)
