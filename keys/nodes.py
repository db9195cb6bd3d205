"""The tree's rows in PostgreSQL: every statement of this package, a function each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from keys.tree import Node, Scope, WrappedKey

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# What asyncpg raises when the database is away, and not when a statement is wrong.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)

_LOCK_SPACE = 0x6B657973  # "keys"
_NODE = "n.id, n.level, n.epoch, n.parent, n.slot, n.used, n.page"
_DATA_KEY = "id, region, scope, scope_epoch, wrap"


@dataclass(frozen=True, slots=True)
class Tree:
    """The head of a region's tree: its root node and the root's key under the generation."""

    generation: int
    root: int
    root_wrap: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Path:
    """What it takes to open a scope: the head, the nodes from the root down, the scope itself."""

    tree: Tree
    nodes: list[Node]
    scope: Scope


@dataclass(frozen=True, slots=True)
class Counts:
    """How large a region's tree is, and what waits for its next seal."""

    generation: int
    active_at: datetime
    keys: int
    scopes: int
    nodes: int
    depth: int
    dirty_scopes: int
    last_destroyed_at: datetime | None


async def try_lock(conn: Connection, region: str) -> bool:
    """Become the only one who seals this region; the session keeps the lock."""
    locked: bool = await conn.fetchval(
        "select pg_try_advisory_lock($1, hashtext($2))", _LOCK_SPACE, region
    )
    return locked


async def unlock(conn: Connection, region: str) -> None:
    """Let the next one seal."""
    if not conn.is_closed():
        await conn.fetchval("select pg_advisory_unlock($1, hashtext($2))", _LOCK_SPACE, region)


async def tree(conn: Connection, region: str, lock: str = "") -> Tree | None:
    """Return the head of the tree; `lock` is `for update` or `for share`."""
    row = await conn.fetchrow(
        f"select generation, root, root_wrap from key_tree where region = $1 {lock}", region
    )
    return Tree(**dict(row)) if row else None


async def insert_tree(conn: Connection, region: str, head: Tree) -> None:
    """Begin a region's tree."""
    await conn.execute(
        "insert into key_tree (region, generation, root, root_wrap) values ($1, $2, $3, $4)",
        region,
        head.generation,
        head.root,
        head.root_wrap,
    )


async def switch(conn: Connection, region: str, head: Tree) -> None:
    """Put the tree's root under another generation; the one before it is retired."""
    await conn.execute(
        "update key_generation set state = 'retired' where region = $1 and state = 'active'", region
    )
    await activate(conn, region, head.generation)
    await conn.execute(
        "update key_tree set generation = $2, root_wrap = $3 where region = $1",
        region,
        head.generation,
        head.root_wrap,
    )


# ---- generations


async def name_generation(conn: Connection, region: str, above: int) -> int:
    """Name the next generation, above every number that was ever named here or is `above`."""
    generation: int = await conn.fetchval(
        """
        insert into key_generation (region, generation, state)
        select $1, greatest($2, coalesce(max(generation), 0)) + 1, 'intended'
        from key_generation where region = $1 returning generation
        """,
        region,
        above,
    )
    return generation


async def set_canary(conn: Connection, region: str, generation: int, canary: bytes) -> None:
    """Keep random bytes wrapped under the generation."""
    await conn.execute(
        "update key_generation set canary = $3 where region = $1 and generation = $2",
        region,
        generation,
        canary,
    )


async def is_intended(conn: Connection, region: str, generation: int) -> bool:
    """Lock the generation's row; whether it still waits to be used."""
    state = await conn.fetchval(
        "select state from key_generation where region = $1 and generation = $2 for update",
        region,
        generation,
    )
    return bool(state == "intended")


async def activate(conn: Connection, region: str, generation: int) -> None:
    """Make an intended generation the one in use."""
    await conn.execute(
        """
        update key_generation set state = 'active', active_at = now()
        where region = $1 and generation = $2 and state = 'intended'
        """,
        region,
        generation,
    )


async def retire_intended(conn: Connection, region: str) -> None:
    """Give up generations that were named and never used; only the holder of the lock may."""
    await conn.execute(
        "update key_generation set state = 'retired' where region = $1 and state = 'intended'",
        region,
    )


async def retired(conn: Connection, region: str) -> list[tuple[int, bytes | None]]:
    """Return generations that are to be destroyed, with their canaries."""
    rows = await conn.fetch(
        """
        select generation, canary from key_generation
        where region = $1 and state = 'retired' order by generation
        """,
        region,
    )
    return [(row["generation"], row["canary"]) for row in rows]


async def set_destroyed(conn: Connection, region: str, generation: int) -> None:
    """Note that the custodian destroyed a retired generation."""
    await conn.execute(
        """
        update key_generation set state = 'destroyed', destroyed_at = clock_timestamp()
        where region = $1 and generation = $2 and state = 'retired'
        """,
        region,
        generation,
    )


async def destroyed_generation(conn: Connection, region: str) -> tuple[int, datetime] | None:
    """Return the last of the generations that are all destroyed, and when the last of them was."""
    row = await conn.fetchrow(
        """
        select max(generation) generation, max(destroyed_at) destroyed_at from key_generation
        where region = $1 and generation < (
            select min(generation) from key_generation where region = $1 and state <> 'destroyed')
        """,
        region,
    )
    if row is None or row["generation"] is None:
        return None
    return row["generation"], row["destroyed_at"]


async def waits_for_seal(conn: Connection, region: str) -> bool:
    """Whether a scope is dirty or a seal was left half done."""
    waits: bool = await conn.fetchval(
        """
        select exists (select from key_scope where region = $1 and dirty)
            or exists (select from key_generation
                       where region = $1 and state in ('intended', 'retired'))
        """,
        region,
    )
    return waits


# ---- nodes and scopes


async def next_node(conn: Connection) -> int:
    """Return an id for a new node."""
    identity: int = await conn.fetchval("select nextval(pg_get_serial_sequence('key_node', 'id'))")
    return identity


async def insert_node(conn: Connection, region: str, node: Node) -> None:
    """Add a node."""
    await conn.execute(
        """
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


async def update_nodes(conn: Connection, region: str, nodes: Sequence[Node]) -> None:
    """Write what changed of the nodes."""
    await conn.execute(
        """
        update key_node n set level = c.level, epoch = c.epoch, used = c.used, page = c.page
        from unnest($2::bigint[], $3::int[], $4::bigint[], $5::bigint[], $6::bytea[])
            c (id, level, epoch, used, page)
        where n.region = $1 and n.id = c.id
        """,
        region,
        [node.id for node in nodes],
        [node.level for node in nodes],
        [node.epoch for node in nodes],
        [node.used for node in nodes],
        [node.page for node in nodes],
    )


async def delete_nodes(conn: Connection, region: str, nodes: Sequence[int]) -> None:
    """Drop empty nodes."""
    await conn.execute(
        "delete from key_node where region = $1 and id = any($2)", region, list(nodes)
    )


async def adopt(conn: Connection, region: str, parent: int, child: int) -> None:
    """Move all children of a node below another, each in the slot it had."""
    for table, column in (("key_node", "parent"), ("key_scope", "node")):
        await conn.execute(
            f"update {table} set {column} = $3 where region = $1 and {column} = $2",
            region,
            parent,
            child,
        )


async def free_path(conn: Connection, region: str) -> list[Node]:
    """Return the path from the root to the lowest node with a free slot; empty if all are full."""
    return _nodes(
        await conn.fetch(
            f"""
            with recursive path as (
                (select {_NODE} from key_node n
                 where region = $1 and used <> 1152921504606846975 order by level, id limit 1)
                union all
                select {_NODE} from key_node n join path on n.id = path.parent
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
            select {_NODE}, s.epoch scope_epoch, s.slot scope_slot
            from key_scope s join key_node n on n.region = s.region and n.id = s.node
            where s.id = $2 and s.region = $1
            union all
            select {_NODE}, path.scope_epoch, path.scope_slot
            from key_node n join path on n.id = path.parent where n.region = $1)
        select path.*, t.generation, t.root, t.root_wrap
        from path, key_tree t where t.region = $1 order by level desc
        """,
        region,
        scope,
    )
    if not rows:
        return None
    nodes, first = _nodes(rows), rows[0]
    head = Tree(first["generation"], first["root"], first["root_wrap"])
    return Path(head, nodes, Scope(scope, first["scope_epoch"], nodes[-1].id, first["scope_slot"]))


async def nodes_above(
    conn: Connection, region: str, leaves: Sequence[int], root: int
) -> dict[int, Node]:
    """Return the leaves, every node above them, and the root."""
    rows = await conn.fetch(
        f"""
        with recursive path as (
            select {_NODE} from key_node n where region = $1 and (id = any($2) or id = $3)
            union
            select {_NODE} from key_node n join path on n.id = path.parent where n.region = $1)
        select * from path
        """,
        region,
        list(leaves),
        root,
    )
    return {node.id: node for node in _nodes(rows)}


def _nodes(rows: list[asyncpg.Record]) -> list[Node]:
    names = ("id", "level", "epoch", "parent", "slot", "used", "page")
    return [Node(*(row[name] for name in names)) for row in rows]


async def insert_scope(conn: Connection, region: str, scope: Scope) -> None:
    """Add a scope."""
    await conn.execute(
        "insert into key_scope (id, region, epoch, node, slot) values ($1, $2, $3, $4, $5)",
        scope.id,
        region,
        scope.epoch,
        scope.node,
        scope.slot,
    )


async def lock_dirty_scopes(conn: Connection, region: str) -> list[Scope]:
    """Return the dirty scopes, locked: an upload into one of them waits, and fails its check."""
    rows = await conn.fetch(
        """
        select id, epoch, node, slot from key_scope
        where region = $1 and dirty order by id for update
        """,
        region,
    )
    return [Scope(**dict(row)) for row in rows]


async def update_scopes(conn: Connection, region: str, scopes: Sequence[Scope]) -> None:
    """Write the new epochs of re-keyed scopes, which are clean now."""
    await conn.execute(
        """
        update key_scope s set epoch = c.epoch, dirty = false
        from unnest($2::uuid[], $3::bigint[]) c (id, epoch)
        where s.region = $1 and s.id = c.id
        """,
        region,
        [scope.id for scope in scopes],
        [scope.epoch for scope in scopes],
    )


async def delete_scopes(conn: Connection, region: str, scopes: Sequence[UUID]) -> None:
    """Drop empty scopes."""
    await conn.execute(
        "delete from key_scope where region = $1 and id = any($2)", region, list(scopes)
    )


# ---- data keys


async def insert_data_key(conn: Connection, key: WrappedKey) -> None:
    """Keep a wrapped key; raises a foreign key violation when its scope was re-keyed."""
    await conn.execute(
        f"insert into data_key ({_DATA_KEY}) values ($1, $2, $3, $4, $5)",
        key.id,
        key.region,
        key.scope,
        key.scope_epoch,
        key.wrap,
    )


async def data_keys(conn: Connection, scopes: Sequence[UUID]) -> list[WrappedKey]:
    """Return all data keys of the scopes."""
    rows = await conn.fetch(f"select {_DATA_KEY} from data_key where scope = any($1)", list(scopes))
    return [WrappedKey(**dict(row)) for row in rows]


async def update_data_keys(conn: Connection, keys: Sequence[WrappedKey]) -> None:
    """Write the wraps of re-keyed scopes."""
    await conn.execute(
        """
        update data_key k set scope_epoch = c.scope_epoch, wrap = c.wrap
        from unnest($1::uuid[], $2::bigint[], $3::bytea[]) c (id, scope_epoch, wrap)
        where k.id = c.id
        """,
        [key.id for key in keys],
        [key.scope_epoch for key in keys],
        [key.wrap for key in keys],
    )


async def delete_data_keys(conn: Connection, region: str, keys: Sequence[UUID]) -> None:
    """Delete data keys and mark their scopes dirty; scopes are locked in the order of their ids."""
    rows = await conn.fetch(
        "delete from data_key where region = $1 and id = any($2) returning scope",
        region,
        list(keys),
    )
    scopes = list({row["scope"] for row in rows})
    await conn.fetch(
        "select from key_scope where region = $1 and id = any($2) order by id for no key update",
        region,
        scopes,
    )
    await conn.execute(
        "update key_scope set dirty = true where region = $1 and id = any($2) and not dirty",
        region,
        scopes,
    )


async def counts(conn: Connection, region: str) -> Counts | None:
    """Return the tree's measures; counts every row, so it is for people, not for a loop."""
    row = await conn.fetchrow(
        """
        select t.generation, g.active_at, n.level + 1 depth,
            (select count(*) from data_key where region = $1) keys,
            (select count(*) from key_scope where region = $1) scopes,
            (select count(*) from key_node where region = $1) nodes,
            (select count(*) from key_scope where region = $1 and dirty) dirty_scopes,
            (select max(destroyed_at) from key_generation where region = $1) last_destroyed_at
        from key_tree t join key_generation g using (region, generation)
            join key_node n on n.region = t.region and n.id = t.root
        where t.region = $1
        """,
        region,
    )
    return Counts(**dict(row)) if row else None
