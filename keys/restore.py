"""
Restore: put the newest tree that is known into a database that was rolled back.

Two states of a region's tree are merged, in the caller's transaction: the database's, which may be
an old backup or a standby that lagged, and the mirror's. The one of the later generation stands,
because a generation only dies once the mirror holds its successor. Of one generation, the shape
with the later revision stands. The data keys of both stay, less those that left the tree in either,
where their scope has the epoch that they are wrapped under: epochs are random, and a scope that
something was shredded of gets another before that counts. So keys are never taken back to the past,
what was shredded stays so, and a row that a segment was written without comes back with a backup.

The bucket is not trusted: a segment's rows are copied while it is authenticated, in a step that is
undone when it does not verify, and its header is followed only then.

Afterwards every scope is dirty: what was written on the lost timeline must lead nowhere, and only
the next seal makes sure of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from keys import generations, mirror_rows, nodes, wrap
from keys.custodian import Custodian
from keys.errors import IntegrityError, KeyDestroyedError, KeyMissingError, RestoreRefusedError
from keys.ground.postgres import Connection
from keys.mirror import CHAIN_MAX, Mirror
from keys.nodes import Tree
from keys.segment import Generation, Gone, Header, Row
from keys.tree import Node, Scope, WrappedKey

# ---- The statements of a restore: segments in temporary tables, reduced to one tree, put in
# place.
#
# The tables live as long as the transaction. `place` is 0 for the newest segment, and less for
# each one before, so the row with the highest place is the latest.

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


# ---- Restore. -----------------------------------------------------------------------------------

#: Rows that go to the database at once.
BATCH = 2000


@dataclass(frozen=True, slots=True)
class Merged:
    """
    What a region's tree is after a restore.

    `source` is where its shape came from; `passed_over` are segments that did not verify.
    """

    region: str
    source: str
    database_generation: int | None
    mirror_generation: int | None
    generation: int
    keys: int
    keys_taken: int
    keys_dropped: int
    passed_over: tuple[str, ...] = ()


class Restore:
    """The restore of one region's tree."""

    def __init__(self, mirror: Mirror, custodian: Custodian, region: str) -> None:
        self._mirror, self._custodian, self._region = mirror, custodian, region

    async def run(self, conn: Connection) -> Merged:
        """
        Merge the mirror into the database; the caller commits, or rolls back to only have looked.

        Raises `RestoreRefusedError` when the custodian opens neither state, or when the bucket
        holds no mirror that can be read.
        """
        region = self._region
        database = await nodes.tree(conn, region, "for update")
        await make_tables(conn, region)
        header, passed_over = await self._newest(conn)
        if header is None:
            raise RestoreRefusedError(
                f"the bucket of {region} holds no copy of the key tree that the custodian opens, "
                "and without it nobody can say what was shredded since the backup; check that "
                f"bucket and custodian are the right ones{_did_not_verify(passed_over)}"
            )
        await self._load_before(conn, header)
        head = await self._choose(database, header)
        await reduce(conn, header.root)
        if head == "mirror":
            tree = Tree(header.generation, header.root, header.root_wrap, header.revision)
            await replace_tree(conn, region, tree)
        else:
            await add_keys(conn, region)
        # Generations that only the lost timeline knew are to be destroyed by the next seal, too.
        living = await self._custodian.generations(region)
        await settle(conn, region, header.number, living)
        now = await nodes.tree(conn, region)
        if now is None:
            raise IntegrityError
        keys, taken, dropped = await counts(conn, region)
        return Merged(
            region=region,
            source=head,
            database_generation=database.generation if database else None,
            mirror_generation=header.generation,
            generation=now.generation,
            keys=keys,
            keys_taken=taken,
            keys_dropped=dropped,
            passed_over=passed_over,
        )

    async def _choose(self, database: Tree | None, header: Header) -> str:
        """Return whose shape stands: `database` or `mirror`."""
        if database is None or database.generation < header.generation:
            return "mirror"
        if database.generation == header.generation:
            return "database" if database.revision >= header.revision else "mirror"
        if await self._root_key(database.generation, database.root_wrap) is None:
            raise RestoreRefusedError(
                f"the database of {self._region} is newer than the copy of its key tree in the "
                f"bucket, and the custodian does not hold its generation {database.generation}; "
                "bring the custodian's keys back"
            )
        return "database"

    async def _newest(self, conn: Connection) -> tuple[Header | None, tuple[str, ...]]:
        """Load the newest segment that verifies; returns its header, and what was passed over."""
        passed_over = list[str]()
        for name in reversed(await self._mirror.names()):
            try:
                # What was copied of one that does not verify goes with the inner transaction.
                async with conn.transaction():
                    return await self._load(conn, 0, name), tuple(passed_over)
            except IntegrityError:
                passed_over.append(name)
        return None, tuple(passed_over)

    async def _load_before(self, conn: Connection, header: Header) -> None:
        """Load the segments before the newest, back to their base, each by its digest."""
        names = set(await self._mirror.names())
        for depth in range(1, CHAIN_MAX + 1):
            name, digest, number = header.previous, header.previous_digest, header.number
            if name is None:
                return
            if digest is None or depth == CHAIN_MAX:
                raise IntegrityError(f"the chain of segments that ends in {name} has no base")
            if name not in names:
                raise IntegrityError(f"{name} is missing in the bucket of {self._region}")
            header = await self._load(conn, -depth, name, digest)
            if header.number >= number:
                raise IntegrityError(f"{name} names a segment that is not before it")

    async def _root_key(self, generation: int, root_wrap: bytes) -> bytes | None:
        """Return the root's key, None when its generation is no more or never was its."""
        context = wrap.root_context(self._region, generation)
        try:
            return await self._custodian.unwrap(self._region, generation, root_wrap, context)
        except (KeyDestroyedError, KeyMissingError, IntegrityError):
            return None

    async def _load(
        self, conn: Connection, place: int, name: str, digest: bytes | None = None
    ) -> Header:
        """
        Copy a segment's rows into the tables of the restore; returns its header.

        Raises `IntegrityError` when it does not verify: then none of the rows may be used.
        """
        header: Header | None = None
        waiting: dict[str, list[tuple[object, ...]]] = {}
        async for row in self._mirror.read(name, digest=digest):
            if isinstance(row, Header):
                header = row
                continue
            table, values = columns(row)
            waiting.setdefault(table, []).append((place, *values))
            if len(waiting[table]) >= BATCH:
                await copy(conn, table, waiting.pop(table))
        for table, rows in waiting.items():
            await copy(conn, table, rows)
        if header is None:
            raise IntegrityError
        return header


def _did_not_verify(names: tuple[str, ...]) -> str:
    return f"; {names[0]} and {len(names) - 1} more did not verify" if names else ""
