"""
The rows of scopes and data keys, and how many there are of everything.

Whoever keeps or reads data keys in a statement of its own, such as the one that stores a group of
documents, embeds the SQL that stands here: `current_keys` and `kept_keys`, `COLUMNS_OF_THING` and
`with_data_key`. No other SQL of the vault writes or reads a wrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from keys import nodes, wrap
from keys.errors import IntegrityError
from keys.ground.postgres import Connection
from keys.nodes import Tree
from keys.tree import Node, Rekeyed, Scope, WrappedKey, add_child, empty_node, node_key, push_down

#: The columns of a data key, in the order of the fields of `WrappedKey`.
COLUMNS = "id, region, scope, scope_epoch, wrap"

#: What a statement does about a row that another transaction has locked: leave it out, or wait.
Locking = Literal["skip locked", ""]
SKIP_LOCKED: Locking = "skip locked"
WAIT: Locking = ""


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
    mirrored_at: datetime | None


async def insert_scope(conn: Connection, region: str, scope: Scope) -> None:
    """Add a scope."""
    await conn.execute(
        """
        with noted as (insert into key_changed (region, scopes) values ($2, array[$1::uuid]))
        insert into key_scope (id, region, epoch, node, slot) values ($1, $2, $3, $4, $5)
        """,
        scope.id,
        region,
        scope.epoch,
        scope.node,
        scope.slot,
    )


async def dirty_scopes(conn: Connection, region: str) -> int:
    """Return how many scopes are dirty."""
    found: int = await conn.fetchval("select count(*) from key_dirty where region = $1", region)
    return found


async def take_dirty_scopes(conn: Connection, region: str, limit: int | None = None) -> list[Scope]:
    """
    Return dirty scopes, locked, and no longer marked: the caller re-keys them or rolls back.

    An upload into one of them waits, and fails its check. What hangs on them is read afterwards, in
    a statement of its own: this one does not see what it waited for.
    """
    # Each scope is one look into the index, whatever the planner thinks of how many are dirty.
    rows = await conn.fetch(
        """
        with taken as (
            delete from key_dirty where region = $1 and scope = any(array(
                select scope from key_dirty where region = $1 order by scope limit $2))
            returning scope)
        select s.id, s.epoch, s.node, s.slot from key_scope s join taken on s.id = taken.scope
        where s.region = $1 order by s.id for update of s
        """,
        region,
        limit,
    )
    return [Scope(*row) for row in rows]


async def dirty_after(conn: Connection, region: str, after: UUID | None, limit: int) -> list[Scope]:
    """Return dirty scopes by their ids, those after one, as they are; nothing is locked."""
    rows = await conn.fetch(
        """
        select s.id, s.epoch, s.node, s.slot
        from key_dirty d join key_scope s on s.id = d.scope and s.region = d.region
        where d.region = $1 and ($2::uuid is null or d.scope > $2) order by d.scope limit $3
        """,
        region,
        after,
        limit,
    )
    return [Scope(*row) for row in rows]


# ---- Keeping data keys: the SQL that every statement embeds which adds one. ---------------------


def current_keys(given: str, scopes: str, locking: Locking) -> str:
    """
    Return two common table expressions that check data keys against their scopes.

    `given` names an expression before them with the columns `COLUMNS`, a row for each key; `scopes`
    is an array of the scopes they name. `current_scopes` has the epoch of each scope and locks it,
    so that no seal gives it a fresh key before the transaction ends. `current_keys` has the keys
    that are wrapped under the scope's epoch; a key that is not there is stale, or, with
    `SKIP_LOCKED`, its scope may only be locked.
    """
    return f"""
    current_scopes as (
        select id, epoch from key_scope where id = any({scopes})
        order by id for key share {locking}),
    current_keys as (
        select g.id, g.region, g.scope, g.scope_epoch, g.wrap
        from {given} g join current_scopes s on s.id = g.scope and s.epoch = g.scope_epoch)
    """


def kept_keys(stored: str) -> str:
    """
    Return the expression that keeps those of `current_keys` whose ids the expression `stored` has.

    Only checked keys can be kept: the foreign key to the scope's epoch is the second guard, which
    fails the whole statement.
    """
    return f"""
    kept_keys as (
        insert into data_key ({COLUMNS})
        select k.id, k.region, k.scope, k.scope_epoch, k.wrap
        from current_keys k join {stored} stored on stored.id = k.id)
    """


_KEEP = f"""
    with given as (
        select * from unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::bytea[])
            given ({COLUMNS})),
    {current_keys("given", "$3", WAIT)},
    {kept_keys("given")}
    select id from given where id not in (select id from current_keys)
    """


async def keep(conn: Connection, keys: Sequence[WrappedKey]) -> set[UUID]:
    """
    Keep wrapped keys, in the caller's transaction; waits for a seal that has their scopes.

    Returns the ids of those that were not kept, since their scope was re-keyed or dropped.
    """
    rows = await conn.fetch(
        _KEEP,
        [key.id for key in keys],
        [key.region for key in keys],
        [key.scope for key in keys],
        [key.scope_epoch for key in keys],
        [key.wrap for key in keys],
    )
    return {row["id"] for row in rows}


# ---- Reading them: beside the thing they belong to, whose id a data key has. --------------------

#: What is selected of the data key `k`, beside the id and the region of the thing it belongs to.
COLUMNS_OF_THING = "k.scope, k.scope_epoch, k.wrap"


def with_data_key(thing: str) -> str:
    """Return the join that adds the data key `k` to a thing, named by its id, if it has one."""
    return f"left join data_key k on k.id = {thing}"


def wrapped_key(row: asyncpg.Record) -> WrappedKey:
    """Return the data key of a row that has the columns `COLUMNS`, among others."""
    return WrappedKey(row["id"], row["region"], row["scope"], row["scope_epoch"], row["wrap"])


def wrapped_key_if_any(row: asyncpg.Record) -> WrappedKey | None:
    """Return the data key of a row, None where the thing has none."""
    return None if row["wrap"] is None else wrapped_key(row)


async def find(conn: Connection, identity: UUID) -> WrappedKey | None:
    """Return a data key by its id, which is that of the thing it belongs to."""
    row = await conn.fetchrow(f"select {COLUMNS} from data_key where id = $1", identity)
    return wrapped_key(row) if row else None


async def put_back(conn: Connection, key: WrappedKey) -> bool:
    """Put back a wrap, or a row that was lost; False where the row is another scope's."""
    done = await conn.execute(
        f"""
        insert into data_key ({COLUMNS}) values ($1, $2, $3, $4, $5)
        on conflict (id) do update set wrap = excluded.wrap
        where data_key.region = $2 and data_key.scope = $3 and data_key.scope_epoch = $4
        """,
        key.id,
        key.region,
        key.scope,
        key.scope_epoch,
        key.wrap,
    )
    return done != "INSERT 0 0"


async def gone_among(conn: Connection, region: str, keys: Sequence[UUID]) -> set[UUID]:
    """Return which of these keys left the tree under a generation that may still live."""
    rows = await conn.fetch(
        "select id from key_gone where region = $1 and id = any($2)", region, list(keys)
    )
    return {row["id"] for row in rows}


async def data_keys(conn: Connection, scopes: Sequence[UUID]) -> list[WrappedKey]:
    """Return all data keys of the scopes."""
    rows = await conn.fetch(f"select {COLUMNS} from data_key where scope = any($1)", list(scopes))
    return [WrappedKey(*row) for row in rows]


async def delete_data_keys(
    conn: Connection, region: str, keys: Sequence[UUID], generation: int
) -> list[UUID]:
    """
    Delete data keys and mark their scopes dirty, in the order of their ids.

    Returns those that had no row: of them only that they are gone is noted.
    """
    rows = await conn.fetch(
        """
        with deleted as (
            delete from data_key where region = $1 and id = any($2) returning id, scope),
        gone as (
            insert into key_gone (region, id, generation)
            select distinct $1, id, $3::bigint from unnest($2::uuid[]) g (id)
            on conflict do nothing),
        dirty as (
            insert into key_dirty (region, scope)
            select distinct $1, scope from deleted order by scope on conflict do nothing)
        select id from unnest($2::uuid[]) g (id) where id not in (select id from deleted)
        """,
        region,
        list(keys),
        generation,
    )
    return [row["id"] for row in rows]


async def mark_dirty(conn: Connection, region: str, scopes: Sequence[UUID]) -> None:
    """Have the next seal give scopes fresh keys, or drop those that are empty."""
    await conn.execute(
        """
        insert into key_dirty (region, scope) select $1, id from key_scope
        where region = $1 and id = any($2) order by id on conflict do nothing
        """,
        region,
        list(scopes),
    )


async def unmark_dirty(conn: Connection, region: str, scope: UUID) -> None:
    """Let the next seal leave a scope as it is."""
    await conn.execute("delete from key_dirty where region = $1 and scope = $2", region, scope)


async def counts(conn: Connection, region: str) -> Counts | None:
    """Return the tree's measures; counts every row, so it is for people, not for a loop."""
    row = await conn.fetchrow(
        """
        select t.generation, g.active_at, n.level + 1 depth,
            (select count(*) from data_key where region = $1) keys,
            (select count(*) from key_scope where region = $1) scopes,
            (select count(*) from key_node where region = $1) nodes,
            (select count(*) from key_dirty where region = $1) dirty_scopes,
            (select max(destroyed_at) from key_generation where region = $1) last_destroyed_at,
            (select written_at from key_mirror where region = $1) mirrored_at
        from key_tree t join key_generation g using (region, generation)
            join key_node n on n.region = t.region and n.id = t.root
        where t.region = $1
        """,
        region,
    )
    return Counts(**dict(row)) if row else None


# ---- Adding a scope: find room for it in the tree, and make room where there is none. -----------

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
    await insert_scope(conn, region, Scope(identity, FIRST_EPOCH, path[-1].id, slot))
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


# ---- What re-keying changed, written in one statement: its constraints see all of it at once.


async def write_rekeyed(conn: Connection, region: str, done: Rekeyed) -> str:
    """
    Write fresh nodes, scopes and data keys, and drop what is empty.

    Returns the mark of the row that notes it. Raises `IntegrityError` when a row is not there.
    """
    root = next((node.id for node in done.nodes if node.parent is None), None)
    for node in done.collapsed:
        if root is not None:
            await nodes.adopt(conn, region, node, root)
    row = await conn.fetchrow(
        f"""
        with scope as (
            update key_scope s set epoch = c.epoch
            from unnest($2::uuid[], $3::bigint[]) c (id, epoch)
            where s.region = $1 and s.id = c.id returning 1),
        data_key as (
            update data_key k set scope_epoch = c.scope_epoch, wrap = c.wrap
            from unnest($4::uuid[], $5::bigint[], $6::bytea[]) c (id, scope_epoch, wrap)
            where k.region = $1 and k.id = c.id returning 1),
        empty_scope as (
            delete from key_scope where region = $1 and id = any($7) returning 1),
        empty_node as (
            delete from key_node where region = $1 and id = any($8) returning 1),
        noted as (
            insert into key_changed (region, nodes, scopes) values ($1, $9, $2)
            returning {nodes.MARK} mark),
        node as (
            update key_node n set level = c.level, epoch = c.epoch, used = c.used, page = c.page,
                dirty = c.dirty
            from unnest($9::bigint[], $10::int[], $11::bigint[], $12::bigint[], $13::bytea[],
                $14::bool[]) c (id, level, epoch, used, page, dirty)
            where n.region = $1 and n.id = c.id returning 1)
        select mark, (select count(*) from scope), (select count(*) from data_key),
            (select count(*) from empty_scope), (select count(*) from empty_node),
            (select count(*) from node)
        from noted
        """,
        region,
        [scope.id for scope in done.scopes],
        [scope.epoch for scope in done.scopes],
        [key.id for key in done.wraps],
        [key.scope_epoch for key in done.wraps],
        [key.wrap for key in done.wraps],
        done.dropped_scopes,
        done.dropped_nodes,
        [node.id for node in done.nodes],
        [node.level for node in done.nodes],
        [node.epoch for node in done.nodes],
        [node.used for node in done.nodes],
        [node.page for node in done.nodes],
        [node.dirty for node in done.nodes],
    )
    parts = done.scopes, done.wraps, done.dropped_scopes, done.dropped_nodes, done.nodes
    if row is None or list(row[1:]) != [len(part) for part in parts]:
        raise IntegrityError
    mark: str = row["mark"]
    return mark
