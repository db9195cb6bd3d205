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
        "insert into key_scope (id, region, epoch, node, slot) values ($1, $2, $3, $4, $5)",
        scope.id,
        region,
        scope.epoch,
        scope.node,
        scope.slot,
    )


async def dirty_scopes(conn: Connection, region: str) -> int:
    """Return how many scopes are dirty."""
    found: int = await conn.fetchval(
        "select count(*) from key_scope where region = $1 and dirty", region
    )
    return found


async def lock_dirty_scopes(conn: Connection, region: str, limit: int | None = None) -> list[Scope]:
    """Return dirty scopes, locked: an upload into one of them waits, and fails its check."""
    rows = await conn.fetch(
        """
        select id, epoch, node, slot from key_scope
        where region = $1 and dirty order by id limit $2 for update
        """,
        region,
        limit,
    )
    return [Scope(**dict(row)) for row in rows]


async def update_scopes(conn: Connection, region: str, scopes: Sequence[Scope]) -> None:
    """Write the new epochs of re-keyed scopes, which are clean now."""
    await conn.execute(
        """
        update key_scope s set epoch = c.epoch, dirty = false, changed = default
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
        update data_key k set scope_epoch = c.scope_epoch, wrap = c.wrap, changed = default
        from unnest($1::uuid[], $2::bigint[], $3::bytea[]) c (id, scope_epoch, wrap)
        where k.id = c.id
        """,
        [key.id for key in keys],
        [key.scope_epoch for key in keys],
        [key.wrap for key in keys],
    )


async def delete_data_keys(
    conn: Connection, region: str, keys: Sequence[UUID], generation: int
) -> None:
    """Delete data keys and mark their scopes dirty; scopes are locked in the order of their ids."""
    rows = await conn.fetch(
        """
        with deleted as (
            delete from data_key where region = $1 and id = any($2) returning id, scope),
        gone as (
            insert into key_gone (region, id, generation) select $1, id, $3 from deleted
            on conflict do nothing)
        select scope from deleted
        """,
        region,
        list(keys),
        generation,
    )
    await mark_dirty(conn, region, list({row["scope"] for row in rows}))


async def mark_dirty(conn: Connection, region: str, scopes: Sequence[UUID]) -> None:
    """Have the next seal give scopes fresh keys, or drop those that are empty."""
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


async def forget_gone(conn: Connection, region: str, generation: int) -> None:
    """Forget which data keys left the tree under generations before this one."""
    await conn.execute(
        "delete from key_gone where region = $1 and generation < $2", region, generation
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
            (select max(destroyed_at) from key_generation where region = $1) last_destroyed_at,
            (select written_at from key_mirror where region = $1) mirrored_at
        from key_tree t join key_generation g using (region, generation)
            join key_node n on n.region = t.region and n.id = t.root
        where t.region = $1
        """,
        region,
    )
    return Counts(**dict(row)) if row else None
