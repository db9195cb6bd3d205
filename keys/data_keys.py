"""The rows of scopes and data keys, and how many there are of everything."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from keys.rows import Connection
from keys.tree import Scope, WrappedKey

_DATA_KEY = "id, region, scope, scope_epoch, wrap"


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


async def put_back(conn: Connection, key: WrappedKey) -> bool:
    """Put back a wrap, or a row that was lost; False where the row is another scope's."""
    done = await conn.execute(
        f"""
        insert into data_key ({_DATA_KEY}) values ($1, $2, $3, $4, $5)
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
    rows = await conn.fetch(f"select {_DATA_KEY} from data_key where scope = any($1)", list(scopes))
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
