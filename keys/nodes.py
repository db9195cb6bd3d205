"""The rows of the tree's head and its nodes in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from keys.errors import RolledBackError
from keys.ground.postgres import Connection
from keys.tree import Node, Scope

_TREE = "generation, root, root_wrap, revision"
#: Which row of `key_changed` it is, as long as nobody moves it.
MARK = "changed::text || ctid::text"
COLUMNS = "n.id, n.level, n.epoch, n.parent, n.slot, n.used, n.page, n.dirty"
_NODE_COLUMNS = len(COLUMNS.split(","))


@dataclass(frozen=True, slots=True)
class Tree:
    """The head of a region's tree: its root node and the root's key under the generation."""

    generation: int
    root: int
    root_wrap: bytes = field(repr=False)
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """What it takes to open a scope: the head, the nodes from the root down, the scope itself."""

    tree: Tree
    nodes: list[Node]
    scope: Scope


async def tree(conn: Connection, region: str, lock: str = "") -> Tree | None:
    """Return the head of the tree; `lock` is `for update` or `for share`."""
    row = await conn.fetchrow(f"select {_TREE} from key_tree where region = $1 {lock}", region)
    return Tree(**dict(row)) if row else None


async def top(conn: Connection, region: str) -> tuple[Tree, Node]:
    """Return the head of the tree and its root node; raises `RolledBackError` without a tree."""
    row = await conn.fetchrow(
        f"""
        select {COLUMNS}, t.generation, t.root, t.root_wrap, t.revision
        from key_tree t join key_node n on n.region = t.region and n.id = t.root
        where t.region = $1
        """,
        region,
    )
    if row is None:
        raise RolledBackError
    return _tree_of(row), nodes_of([row])[0]


async def change(conn: Connection, region: str) -> Tree | None:
    """Lock the head of the tree and count a change of its shape; returns the head as it is now."""
    row = await conn.fetchrow(
        f"update key_tree set revision = revision + 1 where region = $1 returning {_TREE}", region
    )
    return Tree(**dict(row)) if row else None


async def set_root_wrap(conn: Connection, region: str, root_wrap: bytes) -> None:
    """Put back the root's wrap under the generation that it is under."""
    await conn.execute("update key_tree set root_wrap = $2 where region = $1", region, root_wrap)


async def insert_tree(conn: Connection, region: str, head: Tree) -> None:
    """Begin a region's tree."""
    await conn.execute(
        "insert into key_tree (region, generation, root, root_wrap) values ($1, $2, $3, $4)",
        region,
        head.generation,
        head.root,
        head.root_wrap,
    )


async def next_node(conn: Connection) -> int:
    """Return an id for a new node."""
    identity: int = await conn.fetchval("select nextval(pg_get_serial_sequence('key_node', 'id'))")
    return identity


async def insert_node(conn: Connection, region: str, node: Node) -> None:
    """Add a node."""
    await conn.execute(
        """
        with noted as (insert into key_changed (region, nodes) values ($1, array[$2::bigint]))
        insert into key_node (region, id, level, epoch, parent, slot, used, page)
        overriding system value values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        region,
        node.id,
        node.level,
        node.epoch,
        node.parent,
        node.slot,
        node.used,
        node.page,
    )


async def update_node(conn: Connection, region: str, node: Node) -> None:
    """Write a node that got or lost a child."""
    await conn.execute(
        """
        with noted as (insert into key_changed (region, nodes) values ($1, array[$2::bigint]))
        update key_node set level = $3, used = $4, page = $5 where region = $1 and id = $2
        """,
        region,
        node.id,
        node.level,
        node.used,
        node.page,
    )


async def adopt(conn: Connection, region: str, parent: int, child: int) -> None:
    """Move all children of a node below another, each in the slot it had."""
    for table, column, noted in (("key_node", "parent", "nodes"), ("key_scope", "node", "scopes")):
        await conn.execute(
            f"""
            with moved as (
                update {table} set {column} = $3 where region = $1 and {column} = $2 returning id)
            insert into key_changed (region, {noted})
            select $1, array_agg(id) from moved having count(*) > 0
            """,
            region,
            parent,
            child,
        )


async def free_path(conn: Connection, region: str) -> list[Node]:
    """Return the path from the root to the lowest node with a free slot; empty if all are full."""
    return nodes_of(
        await conn.fetch(
            f"""
            with recursive path as (
                (select {COLUMNS} from key_node n
                 where region = $1 and used <> 1152921504606846975 order by level, id limit 1)
                union all
                select {COLUMNS} from key_node n join path on n.id = path.parent
                where n.region = $1)
            select * from path order by level desc
            """,
            region,
        )
    )


async def scope_path(conn: Connection, region: str, scope: UUID) -> Path | None:
    """Return what it takes to open a scope, of one moment; None when there is no such scope."""
    rows = await conn.fetch(
        f"""
        with recursive path as (
            select {COLUMNS}, s.epoch scope_epoch, s.slot scope_slot
            from key_scope s join key_node n on n.region = s.region and n.id = s.node
            where s.id = $2 and s.region = $1
            union all
            select {COLUMNS}, path.scope_epoch, path.scope_slot
            from key_node n join path on n.id = path.parent where n.region = $1)
        select path.*, t.generation, t.root, t.root_wrap, t.revision
        from path, key_tree t where t.region = $1 order by level desc
        """,
        region,
        scope,
    )
    if not rows:
        return None
    nodes, first = nodes_of(rows), rows[0]
    place = Scope(scope, first["scope_epoch"], nodes[-1].id, first["scope_slot"])
    return Path(_tree_of(first), nodes, place)


async def some_scopes(conn: Connection, region: str, count: int) -> list[UUID]:
    """Return some scopes found by chance, the same one more than once where there are few."""
    rows = await conn.fetch(
        """
        with bounds as (
            select min(node) lowest, max(node) highest from key_scope where region = $1),
        chosen as (
            select lowest + floor(random() * (highest - lowest + 1))::bigint node
            from bounds, generate_series(1, $2) where lowest is not null)
        select s.id from chosen, lateral (
            select id from key_scope where region = $1 and node >= chosen.node
            order by region, node, slot limit 1) s
        """,
        region,
        count,
    )
    return [row["id"] for row in rows]


async def nodes_above(
    conn: Connection,
    region: str,
    leaves: Sequence[int],
    root: int,
    *,
    dirty: bool = False,
    since: str | None = None,
    but: str = "",
) -> dict[int, Node]:
    """
    Return the leaves, every node above them, and the root.

    With `dirty` the dirty nodes are among them; with `since` those that changed since then, `but`
    not what the row with this mark notes.
    """
    # Each step up is one look into the index, whatever the planner thinks of how many there are.
    rows = await conn.fetch(
        f"""
        with recursive path (id, parent) as (
            select id, parent from key_node where region = $1 and id = any($2)
            union
            select id, parent from key_node where $3 and region = $1 and dirty
            union
            select id, parent from key_node where region = $1 and id = any(array(
                select unnest(nodes) from key_changed
                where region = $1 and changed >= $4::text::xid8 and {MARK} <> $5))
            union
            select above.* from path cross join lateral (
                select id, parent from key_node
                where region = $1 and id = path.parent limit 1) above)
        select {COLUMNS} from key_node n
        where region = $1 and id = any(array(select id from path))
        """,
        region,
        [*leaves, root],
        dirty,
        since,
        but,
    )
    return {node.id: node for node in nodes_of(rows)}


async def children(conn: Connection, region: str, parent: int) -> dict[int, Node]:
    """Return the nodes right below a node."""
    rows = await conn.fetch(
        f"select {COLUMNS} from key_node n where region = $1 and parent = $2", region, parent
    )
    return {node.id: node for node in nodes_of(rows)}


def nodes_of(rows: list[asyncpg.Record]) -> list[Node]:
    """Return the nodes that rows hold, which begin with `COLUMNS`."""
    return [Node(*row[:_NODE_COLUMNS]) for row in rows]


def _tree_of(row: asyncpg.Record) -> Tree:
    return Tree(row["generation"], row["root"], row["root_wrap"], row["revision"])
