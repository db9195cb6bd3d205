"""
The statements of a restore: segments in temporary tables, reduced to one tree, put in place.

The tables live as long as the transaction. `place` is 0 for the newest segment, and
less for each one before, so the row with the highest place is the latest.
"""

from collections.abc import Sequence
from datetime import datetime

from keys import generations, mirror_rows
from keys.nodes import Tree
from keys.rows import Connection
from keys.segment import Generation, Gone, Row
from keys.tree import Node, Scope, WrappedKey

_TABLES = """
    create temporary table found_node (place int, id bigint, level int, epoch bigint,
        parent bigint, slot int, used bigint, page bytea) on commit drop;
    create temporary table found_scope (place int, id uuid, epoch bigint, node bigint, slot int)
        on commit drop;
    create temporary table found_key (place int, id uuid, scope uuid, scope_epoch bigint,
        wrap bytea) on commit drop;
    create temporary table found_gone (place int, id uuid, generation bigint) on commit drop;
    create temporary table found_generation (place int, generation bigint, state text,
        canary bytea, active_at timestamptz, destroyed_at timestamptz) on commit drop;
    create temporary table own_key (like data_key) on commit drop;
"""

# For each id the latest row counts; of two that claim a slot, the one of the later segment; what no
# path of used slots leads to is no part of the tree.
_REDUCE_NODES = """
    create temporary table new_node on commit drop as
    with recursive latest as (
        select distinct on (id) * from found_node order by id, place desc),
    standing as (
        select distinct on (parent, slot) * from latest where parent is not null
        order by parent, slot, place desc),
    tree as (
        select * from latest where id = {root}
        union all
        select n.* from standing n join tree t on n.parent = t.id
            and t.used >> n.slot & 1 = 1 and n.level = t.level - 1)
    select * from tree
"""
_REDUCE_SCOPES = """
    create temporary table new_scope on commit drop as
    with latest as (
        select distinct on (id) * from found_scope order by id, place desc),
    standing as (
        select distinct on (node, slot) * from latest order by node, slot, place desc)
    select s.* from standing s join new_node n on n.id = s.node and n.level = 0
        and n.used >> s.slot & 1 = 1
"""
_REDUCE_KEYS = """
    create temporary table new_key on commit drop as
    with latest as (
        select distinct on (id) * from found_key order by id, place desc)
    select k.* from latest k join new_scope s on s.id = k.scope and s.epoch = k.scope_epoch
    where not exists (select from found_gone g where g.id = k.id)
"""


def columns(row: Row) -> tuple[str, tuple[object, ...]]:
    """Return a row's table and its columns as `copy` wants them."""
    match row:
        case Node():
            place = (row.parent, row.slot, row.used, row.page)
            return "node", (row.id, row.level, row.epoch, *place)
        case Scope():
            return "scope", (row.id, row.epoch, row.node, row.slot)
        case WrappedKey():
            return "key", (row.id, row.scope, row.scope_epoch, row.wrap)
        case Gone():
            return "gone", (row.id, row.generation)
        case Generation():
            times = (
                datetime.fromisoformat(time) if time else None
                for time in (row.active_at, row.destroyed_at)
            )
            return "generation", (row.generation, row.state, row.canary, *times)


async def make_tables(conn: Connection, region: str) -> None:
    """Make the tables that segments are copied into, and keep the data keys as they are now."""
    await conn.execute(_TABLES)
    await conn.execute("insert into own_key select * from data_key where region = $1", region)
    await conn.execute("create index on own_key (id)")


async def copy(conn: Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Add rows of a segment."""
    await conn.copy_records_to_table(f"found_{table}", records=rows)


async def reduce(conn: Connection, root: int) -> None:
    """Make one tree of all segments: `new_node`, `new_scope`, `new_key`."""
    await conn.execute(_REDUCE_NODES.format(root=int(root)))
    await conn.execute(_REDUCE_SCOPES)
    await conn.execute(_REDUCE_KEYS)
    await conn.execute("create index on new_key (id); create index on new_scope (id)")


async def counts(conn: Connection, region: str) -> tuple[int, int, int]:
    """Return how many data keys there are, how many are new, and how many went."""
    row = await conn.fetchrow(
        """
        select (select count(*) from data_key where region = $1) keys,
            (select count(*) from data_key k where region = $1
                and not exists (select from own_key o where o.id = k.id)) taken,
            (select count(*) from own_key o
                where not exists (select from data_key k where k.id = o.id)) dropped
        """,
        region,
    )
    return (row["keys"], row["taken"], row["dropped"]) if row else (0, 0, 0)


async def replace_tree(conn: Connection, region: str, head: Tree) -> None:
    """Put the mirror's tree in place of the database's, with the data keys of both."""
    await conn.execute("set constraints all deferred")
    for table in ("data_key", "key_scope", "key_node"):
        await conn.execute(f"delete from {table} where region = $1", region)
    await conn.execute(
        """
        insert into key_node (region, id, level, epoch, parent, slot, used, page)
        overriding system value
        select $1, id, level, epoch, parent, slot, used, page from new_node
        """,
        region,
    )
    await conn.execute(
        """
        insert into key_scope (id, region, epoch, node, slot)
        select id, $1, epoch, node, slot from new_scope
        """,
        region,
    )
    await conn.execute(
        """
        insert into key_generation (region, generation, state)
        values ($1, $2, 'intended') on conflict do nothing
        """,
        region,
        head.generation,
    )
    await conn.execute(
        """
        insert into key_tree (region, generation, root, root_wrap, revision)
        values ($1, $2, $3, $4, $5)
        on conflict (region) do update set generation = excluded.generation,
            root = excluded.root, root_wrap = excluded.root_wrap, revision = excluded.revision
        """,
        region,
        head.generation,
        head.root,
        head.root_wrap,
        head.revision,
    )
    await conn.execute(
        """
        insert into data_key (id, region, scope, scope_epoch, wrap)
        select o.id, $1, o.scope, o.scope_epoch, o.wrap
        from own_key o join key_scope s on s.id = o.scope and s.epoch = o.scope_epoch
        where not exists (select from found_gone g where g.id = o.id)
            and not exists (select from new_key n where n.id = o.id)
        """,
        region,
    )
    await add_keys(conn, region)


async def add_keys(conn: Connection, region: str) -> None:
    """Add the mirror's data keys that the tree has room for, and drop what left it there."""
    await conn.execute(
        """
        insert into data_key (id, region, scope, scope_epoch, wrap)
        select n.id, $1, n.scope, n.scope_epoch, n.wrap
        from new_key n join key_scope s on s.id = n.scope and s.epoch = n.scope_epoch
        where not exists (select from key_gone g where g.region = $1 and g.id = n.id)
        on conflict (id) do nothing
        """,
        region,
    )
    await conn.execute(
        "delete from data_key where region = $1 and id in (select id from found_gone)", region
    )


async def settle(conn: Connection, region: str, number: int, living: Sequence[int]) -> None:
    """Make the rest agree: generations, numbers never used twice, everything dirty."""
    await conn.execute(
        """
        insert into key_generation (region, generation, state, canary, active_at, destroyed_at)
        select distinct on (generation) $1, generation, state, canary, active_at, destroyed_at
        from found_generation order by generation, place desc
        on conflict (region, generation) do update set state = excluded.state,
            canary = excluded.canary, active_at = excluded.active_at,
            destroyed_at = excluded.destroyed_at, changed = default
        where excluded.state = 'destroyed'
        """,
        region,
    )
    await generations.adopt(conn, region, living)
    await conn.execute(
        """
        update key_generation set state = 'retired', changed = default
        where region = $1 and state <> 'destroyed'
        """,
        region,
    )
    await conn.execute(
        """
        update key_generation g set state = 'active', active_at = coalesce(active_at, now()),
            destroyed_at = null
        from key_tree t where g.region = $1 and t.region = $1 and g.generation = t.generation
        """,
        region,
    )
    await conn.execute(
        """
        insert into key_gone (region, id, generation)
        select distinct $1, id, generation from found_gone on conflict do nothing
        """,
        region,
    )
    await conn.execute("delete from key_dirty where region = $1", region)
    await conn.execute(
        "insert into key_dirty (region, scope) select region, id from key_scope where region = $1",
        region,
    )
    # A leaf that was patched and lost its last scope has none to make it dirty.
    await conn.execute("update key_node set dirty = true where region = $1", region)
    await conn.execute("update key_tree set revision = revision + 1 where region = $1", region)
    await mirror_rows.renumber(conn, region)
    await conn.execute(
        """
        select setval(pg_get_serial_sequence('key_node', 'id'), greatest(
            (select max(id) from key_node), nextval(pg_get_serial_sequence('key_node', 'id'))))
        """
    )
    await conn.execute(
        """
        insert into key_mirror (region, intended, written, base_bytes, segments, segments_bytes)
        values ($1, $2, 0, 0, 0, 0)
        on conflict (region) do update set seen = null, name = null, digest = null,
            intended = greatest(key_mirror.intended, excluded.intended)
        """,
        region,
        number,
    )
