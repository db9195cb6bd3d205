"""Planting: find room for a new scope in the tree, and make it where there is none."""

from uuid import UUID

from keys import data_keys, nodes, wrap
from keys.nodes import Tree
from keys.rows import Connection
from keys.tree import Node, Scope, add_child, empty_node, node_key, push_down

FIRST_EPOCH = 1


async def add_scope(
    conn: Connection, region: str, head: Tree, root_key: bytes, identity: UUID
) -> bytes:
    """
    Add a scope with a fresh key, which is returned; the caller holds the tree's row.

    The lowest node with a free slot takes it; a tree that is full grows by one level.
    """
    path = await nodes.free_path(conn, region)
    if not path:
        path = await _grow(conn, region, head.root, root_key)
    key = node_key(region, path, root_key)
    while path[-1].level > 0:
        key = await _add_node(conn, region, path, key)
    scope_key = wrap.new_key()
    slot = add_child(region, path[-1], key, scope_key)
    await nodes.update_node(conn, region, path[-1])
    await data_keys.insert_scope(conn, region, Scope(identity, FIRST_EPOCH, path[-1].id, slot))
    return scope_key


async def _grow(conn: Connection, region: str, root: int, root_key: bytes) -> list[Node]:
    """Push the full root's page down into a new node; returns the path, which is the root."""
    top = (await nodes.nodes_above(conn, region, [], root))[root]
    below = empty_node(region, await nodes.next_node(conn), top.level, key := wrap.new_key())
    push_down(region, top, root_key, below, key)
    await nodes.adopt(conn, region, root, below.id)
    await nodes.insert_node(conn, region, below)
    await nodes.update_node(conn, region, top)
    return [top]


async def _add_node(conn: Connection, region: str, path: list[Node], key: bytes) -> bytes:
    """Add an empty node below the last of the path, and append it; returns its key."""
    above, new = path[-1], wrap.new_key()
    below = empty_node(region, await nodes.next_node(conn), above.level - 1, new)
    below.slot, below.parent = add_child(region, above, key, new), above.id
    await nodes.update_node(conn, region, above)
    await nodes.insert_node(conn, region, below)
    path.append(below)
    return new
