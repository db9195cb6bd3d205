"""What re-keying changed, written in one statement: its constraints see all of it at once."""

from keys import nodes
from keys.errors import IntegrityError
from keys.rekey import Rekeyed
from keys.rows import Connection


async def write(conn: Connection, region: str, done: Rekeyed) -> str:
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
