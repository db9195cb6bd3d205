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

from dataclasses import dataclass

from keys import nodes, restore_rows, wrap
from keys.custodian import Custodian
from keys.errors import IntegrityError, KeyDestroyedError, KeyMissingError, RestoreRefusedError
from keys.mirror import CHAIN_MAX, Mirror
from keys.nodes import Tree
from keys.rows import Connection
from keys.segment import Header

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
        await restore_rows.make_tables(conn, region)
        header, passed_over = await self._newest(conn)
        if header is None:
            raise RestoreRefusedError(
                f"the bucket of {region} holds no copy of the key tree that the custodian opens, "
                "and without it nobody can say what was shredded since the backup; check that "
                f"bucket and custodian are the right ones{_did_not_verify(passed_over)}"
            )
        await self._load_before(conn, header)
        head = await self._choose(database, header)
        await restore_rows.reduce(conn, header.root)
        if head == "mirror":
            tree = Tree(header.generation, header.root, header.root_wrap, header.revision)
            await restore_rows.replace_tree(conn, region, tree)
        else:
            await restore_rows.add_keys(conn, region)
        # Generations that only the lost timeline knew are to be destroyed by the next seal, too.
        living = await self._custodian.generations(region)
        await restore_rows.settle(conn, region, header.number, living)
        now = await nodes.tree(conn, region)
        if now is None:
            raise IntegrityError
        keys, taken, dropped = await restore_rows.counts(conn, region)
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
            table, values = restore_rows.columns(row)
            waiting.setdefault(table, []).append((place, *values))
            if len(waiting[table]) >= BATCH:
                await restore_rows.copy(conn, table, waiting.pop(table))
        for table, rows in waiting.items():
            await restore_rows.copy(conn, table, rows)
        if header is None:
            raise IntegrityError
        return header


def _did_not_verify(names: tuple[str, ...]) -> str:
    return f"; {names[0]} and {len(names) - 1} more did not verify" if names else ""
