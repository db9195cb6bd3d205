"""The rows that a segment of the mirror takes out of PostgreSQL, and how far the mirror is."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from keys import data_keys, nodes
from keys.ground.postgres import Connection
from keys.nodes import Tree
from keys.segment import Generation, Gone, Row
from keys.tree import Node, Rekeyed, Scope, WrappedKey

#: Leaves that are read at once with all that hangs on them.
LEAVES_BATCH = 100
_SCOPE = "id, epoch, node, slot"
_CHANGED = "region = $1 and changed >= $2::text::xid8"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a region's mirror is: the last segment written, and what changed since `seen`."""

    intended: int
    written: int
    name: str | None
    digest: bytes | None = field(repr=False)
    base_bytes: int
    segments: int
    segments_bytes: int
    seen: str | None
    #: Whether transactions are numbered on from those before `seen`: they are not where a dump was
    #: loaded into another server.
    counts_on: bool = True


@dataclass(frozen=True, slots=True)
class Known:
    """What a committed transaction wrote: rows that need not be read, unless others wrote them."""

    #: Of the row that notes what it wrote.
    mark: str
    written: Rekeyed


async def progress(conn: Connection, region: str) -> Progress | None:
    """Return how far the mirror is, None before its first segment was intended."""
    row = await conn.fetchrow(
        """
        select intended, written, name, digest, base_bytes, segments, segments_bytes,
            seen::text seen,
            coalesce(seen <= pg_snapshot_xmin(pg_current_snapshot()), true) counts_on
        from key_mirror where region = $1
        """,
        region,
    )
    return Progress(**dict(row)) if row else None


async def intend(conn: Connection, region: str) -> Progress:
    """Take the next number, which nobody gets again."""
    row = await conn.fetchrow(
        """
        insert into key_mirror (region, intended, written, base_bytes, segments, segments_bytes)
        values ($1, 1, 0, 0, 0, 0)
        on conflict (region) do update set intended = key_mirror.intended + 1
        returning intended, written, name, digest, base_bytes, segments, segments_bytes,
            seen::text seen,
            coalesce(seen <= pg_snapshot_xmin(pg_current_snapshot()), true) counts_on
        """,
        region,
    )
    return Progress(**dict(row)) if row else Progress(1, 0, None, None, 0, 0, 0, None)


async def set_written(conn: Connection, region: str, now: Progress) -> bool:
    """Note that the segment of the intended number is there; False when another came after it."""
    done = await conn.fetchval(
        """
        with held as (
            delete from key_changed where region = $1 and changed < $8::text::xid8)
        update key_mirror set written = $2, name = $3, digest = $4, base_bytes = $5, segments = $6,
            segments_bytes = $7, seen = $8::text::xid8, written_at = clock_timestamp()
        where region = $1 and intended = $2 returning true
        """,
        region,
        now.intended,
        now.name,
        now.digest,
        now.base_bytes,
        now.segments,
        now.segments_bytes,
        now.seen,
    )
    return bool(done)


async def moment(conn: Connection, region: str) -> tuple[str, Tree | None]:
    """Return what the transaction, which shows one moment, does not see yet; and the head."""
    row = await conn.fetchrow(
        """
        select pg_snapshot_xmin(pg_current_snapshot())::text seen,
            t.generation, t.root, t.root_wrap, t.revision
        from (select) one left join key_tree t on t.region = $1
        """,
        region,
    )
    if row is None or row["generation"] is None:
        return "", None
    head = Tree(row["generation"], row["root"], row["root_wrap"], row["revision"])
    return row["seen"], head


async def look(conn: Connection) -> None:
    """Have the transaction, which this must begin, show one moment."""
    await conn.execute("set transaction isolation level repeatable read, read only")


async def renumber(conn: Connection, region: str) -> None:
    """Forget what the transactions of another server changed; the next segment must be a base."""
    for table in ("data_key", "key_generation", "key_gone"):
        await conn.execute(
            f"update {table} set changed = default "
            "where region = $1 and changed > pg_current_xact_id()",
            region,
        )
    await conn.execute("delete from key_changed where region = $1", region)


async def has_changed(conn: Connection, region: str, since: str) -> bool:
    """Whether anything changed that no segment holds."""
    found: bool = await conn.fetchval(
        " or ".join(
            f"exists (select from {table} where {_CHANGED})"
            for table in ("key_changed", "data_key", "key_generation", "key_gone")
        ).join(("select ", "")),
        region,
        since,
    )
    return found


async def changed_scopes(conn: Connection, region: str) -> list[UUID]:
    """Return the scopes that are new or were re-keyed since the last segment."""
    rows = await conn.fetch(
        "select distinct unnest(scopes) id from key_changed where region = $1", region
    )
    return [row["id"] for row in rows]


async def whole(conn: Connection, region: str) -> AsyncIterator[Row]:
    """Yield the whole tree from the root down, with constant memory below its inner nodes."""
    for row in await _side_rows(conn, region, None):
        yield row
    inner = await conn.fetch(
        f"select {nodes.COLUMNS} from key_node n where region = $1 and level > 0 "
        "order by level desc",
        region,
    )
    for node in nodes.nodes_of(inner):
        yield node
    last = -1
    while leaves := await _leaves(conn, region, last):
        last = leaves[-1].id
        rows = await conn.fetch(
            f"select {_SCOPE} from key_scope where region = $1 and node = any($2)",
            region,
            [leaf.id for leaf in leaves],
        )
        scopes = [Scope(*row) for row in rows]
        keys = await _keys_of(conn, scopes)
        for row in ordered(leaves, scopes, keys):
            yield row


async def some(
    conn: Connection, region: str, root: int, after: int
) -> tuple[list[Node], list[Row]]:
    """Return the next leaves after one; and they, what is above them and what hangs on them."""
    leaves = await _leaves(conn, region, after)
    above = await nodes.nodes_above(conn, region, [leaf.id for leaf in leaves], root)
    rows = await conn.fetch(
        f"select {_SCOPE} from key_scope where region = $1 and node = any($2)",
        region,
        [leaf.id for leaf in leaves],
    )
    scopes = [Scope(*row) for row in rows]
    keys = await _keys_of(conn, scopes)
    return leaves, list(from_the_root(above.values(), scopes, keys))


async def changes(
    conn: Connection, region: str, head: Tree, since: str, known: Known | None = None
) -> AsyncIterator[Row]:
    """Yield all that changed, and what it takes to open it, from the root down."""
    side = await _side_rows(conn, region, since)
    for row in side:
        yield row
    but = known.mark if known else ""
    rows = await conn.fetch(
        f"""
        with noted as (
            select distinct unnest(scopes) id from key_changed
            where {_CHANGED} and {nodes.MARK} <> $3),
        given as (select distinct scope id from data_key where {_CHANGED})
        select {_SCOPE}, noted.id is not null anew
        from key_scope join (noted full join given using (id)) using (id) where region = $1
        """,
        region,
        since,
        but,
    )
    scopes = [Scope(row["id"], row["epoch"], row["node"], row["slot"]) for row in rows]
    # A scope that changed is new or was re-keyed, and with it all that hangs on it.
    rows = rows and await conn.fetch(
        f"select {data_keys.COLUMNS} from data_key where ({_CHANGED}) or scope = any($3)",
        region,
        since,
        [row["id"] for row in rows if row["anew"]],
    )
    keys = [WrappedKey(*row) for row in rows]
    above = list({scope.node for scope in scopes})
    found = await nodes.nodes_above(conn, region, above, head.root, since=since, but=but)
    if known is not None:
        found, scopes, keys = _with_known(known.written, side, found, scopes, keys)
    for item in from_the_root(found.values(), scopes, keys):
        yield item


def from_the_root(
    found: Iterable[Node], scopes: Iterable[Scope], keys: Iterable[WrappedKey]
) -> Iterable[Row]:
    """Yield the inner nodes, level by level, then each leaf with all that hangs on it."""
    in_order = sorted(found, key=lambda node: (-node.level, node.id))
    yield from (node for node in in_order if node.level > 0)
    yield from ordered([node for node in in_order if node.level == 0], scopes, keys)


def _with_known(
    written: Rekeyed,
    side: Sequence[Row],
    found: dict[int, Node],
    scopes: Sequence[Scope],
    keys: Sequence[WrappedKey],
) -> tuple[dict[int, Node], list[Scope], list[WrappedKey]]:
    """Add what a transaction wrote; what was read, or has gone since, is newer."""
    gone = {row.id for row in side if isinstance(row, Gone)}
    all_keys = {key.id: key for key in (*written.wraps, *keys) if key.id not in gone}
    all_scopes = {scope.id: scope for scope in (*written.scopes, *scopes)}
    all_nodes = {**{node.id: node for node in written.nodes}, **found}
    return all_nodes, list(all_scopes.values()), list(all_keys.values())


def ordered(
    leaves: Sequence[Node], scopes: Iterable[Scope], keys: Iterable[WrappedKey]
) -> Iterable[Row]:
    """Yield each leaf, then each of its scopes, each followed by its keys; none is left out."""
    by_leaf: dict[int, list[Scope]] = {}
    for scope in scopes:
        by_leaf.setdefault(scope.node, []).append(scope)
    by_scope: dict[UUID, list[WrappedKey]] = {}
    for key in keys:
        by_scope.setdefault(key.scope, []).append(key)
    for leaf in leaves:
        yield leaf
        for scope in by_leaf.pop(leaf.id, ()):
            yield scope
            yield from by_scope.pop(scope.id, ())
    # What hangs on nothing comes last: whoever opens it finds that it does not open.
    for left in by_leaf.values():
        yield from left
    for keys_left in by_scope.values():
        yield from keys_left


async def _side_rows(conn: Connection, region: str, since: str | None) -> list[Row]:
    """Return generations and what has gone: all that is still of use, or what changed."""
    living = "(state <> 'destroyed' or generation = (select max(generation) from key_generation "
    living += "where region = $1 and state = 'destroyed'))"
    rows = await conn.fetch(
        f"""
        select generation, state, canary,
            to_char(active_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') active_at,
            to_char(destroyed_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') destroyed_at
        from key_generation where region = $1 and
            {living if since is None else "changed >= $2::text::xid8"}
        order by generation
        """,
        region,
        *([] if since is None else [since]),
    )
    found: list[Row] = [Generation(*row) for row in rows]
    condition = "region = $1" if since is None else _CHANGED
    rows = await conn.fetch(
        f"select id, generation from key_gone where {condition}",
        region,
        *([] if since is None else [since]),
    )
    return found + [Gone(*row) for row in rows]


async def _leaves(conn: Connection, region: str, after: int) -> list[Node]:
    rows = await conn.fetch(
        f"""
        select {nodes.COLUMNS} from key_node n where region = $1 and level = 0 and id > $2
        order by id limit $3
        """,
        region,
        after,
        LEAVES_BATCH,
    )
    return nodes.nodes_of(rows)


async def _keys_of(conn: Connection, scopes: Sequence[Scope]) -> list[WrappedKey]:
    return await data_keys.data_keys(conn, [scope.id for scope in scopes])
