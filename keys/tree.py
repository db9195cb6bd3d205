"""
The tree's algorithm: open a path, add a scope, grow. Pure, no I/O; what a seal does is `rekey`.

A node keeps its children's keys as one page, sealed under the node's own key, which stands in its
parent's page. Level 0 holds scopes. A full root pushes its page down into a new child, so the tree
grows by whole levels and the root stays the same node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

from keys.errors import IntegrityError
from keys.wrap import (
    PAGE_BYTES,
    SLOTS,
    child_key,
    open_page,
    page_context,
    seal_page,
    set_child_key,
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
    """Return a node without children, sealed under its key at epoch 1."""
    page = seal_page(key, bytes(PAGE_BYTES), page_context(region, identity, 1))
    return Node(identity, level, 1, None, None, 0, page)


def add_child(region: str, node: Node, node_key: bytes, key: bytes) -> int:
    """Put a child's key into the node's lowest free slot, seal the page anew, return the slot."""
    context = page_context(region, node.id, node.epoch)
    page = open_page(node_key, node.page, context)
    slot = free_slot(node.used)
    set_child_key(page, slot, key)
    node.used |= 1 << slot
    node.page = seal_page(node_key, page, context)
    return slot


def push_down(region: str, root: Node, root_key: bytes, below: Node, key: bytes) -> None:
    """
    Make room in a full root: `below` takes over its page under a fresh `key`, in its first slot.

    The children's rows must move to `below` in the same transaction. The old page lies in backups
    under the root's key, which goes at the next seal.
    """
    page = open_page(root_key, root.page, page_context(region, root.id, root.epoch))
    below.level, below.used, below.parent, below.slot = root.level, root.used, root.id, 0
    below.page = seal_page(key, bytes(page), page_context(region, below.id, below.epoch))
    only = bytearray(PAGE_BYTES)
    set_child_key(only, 0, key)
    root.level, root.used = root.level + 1, 1
    root.page = seal_page(root_key, bytes(only), page_context(region, root.id, root.epoch))


def open_path(region: str, path: Sequence[Node], root_key: bytes, slot: int) -> bytes:
    """
    Return the key in `slot` of the last node of a path that starts at the root.

    Raises `IntegrityError` unless every page opens and every node stands where its parent says.
    """
    key = node_key(region, path, root_key)
    last = path[-1]
    return child_key(open_page(key, last.page, page_context(region, last.id, last.epoch)), slot)


def node_key(region: str, path: Sequence[Node], root_key: bytes) -> bytes:
    """Return the key of the last node of a path that starts at the root."""
    key = root_key
    for above, below in pairwise(path):
        if below.parent != above.id or below.slot is None:
            raise IntegrityError
        page = open_page(key, above.page, page_context(region, above.id, above.epoch))
        key = child_key(page, below.slot)
    return key
