"""
The seal: replace a region's root generation and destroy the old one.

One at a time per region, across processes, by a lock that dies with its session. Every step is
driven by what is stored, so a seal that was killed between any two is finished by the next one. The
comments say what a crash leaves.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from keys import damage, data_keys, generations, mirror_rows, nodes, wrap
from keys import data_keys as rekeyed_rows
from keys.custodian import Custodian
from keys.damage import Damage, DamagedError, Finder
from keys.errors import (
    CustodianUnavailableError,
    ForeignKeysError,
    IntegrityError,
    KeyDestroyedError,
    KeysError,
    KeysUnavailableError,
    RolledBackError,
    StandbyBehindError,
)
from keys.generations import Outlook
from keys.ground.postgres import Connection, Pool
from keys.mirror import Mirror
from keys.mirror_rows import Known
from keys.nodes import Tree
from keys.segment import Row
from keys.tree import Node, Scope, WrappedKey, empty_node, patch, rekey

# ---- Standbys: whoever could be promoted must have replayed a seal before the old root is
# destroyed.
#
# Otherwise a fail-over would leave a database whose root nobody can open. What streams from this
# server counts, and so does every standby that the configuration names, whether it is there or
# not. `pg_basebackup` and `pg_receivewal` are never promoted and do not count.

POLL_SECONDS = 0.05


async def behind(
    conn: Connection, named: Sequence[str], position: str | None = None
) -> tuple[list[str], str]:
    """Return the standbys that have not replayed the log up to a position, or to now; and it."""
    rows = await conn.fetch(
        """
        select position::text, application_name, coalesce(replay_lsn >= position, false) replayed
        from coalesce($1::text::pg_lsn, pg_current_wal_lsn()) position
            left join pg_stat_replication
                on state <> 'backup' and application_name <> 'pg_receivewal'
        """,
        position,
    )
    position = rows[0]["position"]
    rows = [row for row in rows if row["application_name"] is not None]
    late = {row["application_name"] for row in rows if not row["replayed"]}
    there = {row["application_name"] for row in rows}
    return sorted(late | (set(named) - there)), position


async def wait_for_standbys(conn: Connection, named: Sequence[str], seconds: float) -> None:
    """Return once all standbys have replayed what is committed; raises `StandbyBehindError`."""
    late, position = await behind(conn, named)
    give_up_at = time.monotonic() + seconds
    while late:
        if time.monotonic() > give_up_at:
            raise StandbyBehindError(
                f"{', '.join(late)} has not replayed the seal, so the old root key is kept; start "
                "it, or drop it from `standbys` and from this server if it is never to be "
                "promoted (who reads pg_stat_replication needs the role pg_monitor)"
            )
        await asyncio.sleep(POLL_SECONDS)
        late, _ = await behind(conn, named, position)


# ---- What the keys are for, which the tree itself does not know: whoever uses the keyring tells
# it.
#
# A data key that left the tree without a shred is a row that was lost. The mirror may still hold
# it, wrapped under what stands above it now: whoever replaces what stands above it asks here
# first.


class Living(Protocol):
    """Knows what was not shredded; reads within the caller's transaction."""

    async def unkeyed(
        self, conn: Connection, region: str, scopes: Sequence[UUID] | None
    ) -> list[UUID]:
        """Return what was not shredded and has no data key: of these scopes, or of all (None)."""

    async def scopes_of(self, conn: Connection, region: str, things: Sequence[UUID]) -> list[UUID]:
        """Return every scope that a data key of these things may have hung on."""


# ---- Seal. --------------------------------------------------------------------------------------

log = logging.getLogger(__name__)

LOCK_WAIT_SECONDS = 30.0
LOCK_POLL_SECONDS = 0.05
STANDBY_WAIT_SECONDS = 30.0
CANARY_CONTEXT = b"portvault/canary/v1"
#: Dirty scopes that the switch re-keys at most; what is beyond is re-keyed before, in steps of so
#: many, since uploads into a dirty scope and new scopes wait for the transaction.
SCOPES_IN_ONE_STEP = 2_000


@dataclass(frozen=True, slots=True)
class SealResult:
    """What a seal did: how many scopes and nodes got fresh keys, and when the old root died."""

    region: str
    old_generation: int
    new_generation: int
    scopes: int
    nodes: int
    destroyed_at: datetime


class Seal:
    """The seal of one region; `standbys` are those that must have replayed it."""

    def __init__(
        self,
        pool: Pool,
        custodian: Custodian,
        mirror: Mirror,
        region: str,
        living: Living,
        standbys: Sequence[str] = (),
    ) -> None:
        self._pool, self._custodian, self._region = pool, custodian, region
        self._mirror, self._things, self._standbys = mirror, living, standbys

    async def start_tree(self) -> None:
        """
        Make the region's tree with its first generation, where there is none.

        Raises `ForeignKeysError` where the custodian has root keys that were not made here: a seal
        would destroy them, and they may be those of a database whose disk is not mounted.
        """
        async with self.alone() as conn:
            if await nodes.tree(conn, self._region) is not None:
                return
            living = await self._living()
            if unknown := await generations.unknown_among(conn, self._region, living):
                raise ForeignKeysError(self._custodian.name, self._region, unknown)
            await generations.retire_intended(conn, self._region)
            generation = await self._new_generation(conn, living)
            root_key = wrap.new_key()
            root_wrap = await self._wrap_root(generation, root_key)
            canary = await self._make_canary(generation)
            async with conn.transaction():
                root = empty_node(self._region, await nodes.next_node(conn), 0, root_key)
                await nodes.insert_node(conn, self._region, root)
                await generations.activate(conn, self._region, generation, canary)
                await nodes.insert_tree(conn, self._region, Tree(generation, root.id, root_wrap))

    async def run(self, *, force: bool) -> SealResult | None:
        """Seal when something is dirty or half done, or anyway with `force`."""
        async with self.alone() as conn:
            living = await self._destroy_returned(conn, await self._living())
            outlook = await self._outlook(conn, living)
            if not outlook.clear:
                await self._clear(conn, living, outlook.head)
                if not force and not await generations.waits_for_seal(conn, self._region):
                    return None
            elif not force and not outlook.dirty_scopes and not outlook.dirty_nodes:
                return None
            old, old_root_key = outlook.head, await self._open(outlook.head)
            # Before a generation is named: what does not open would stop each seal after it.
            await self._require_sound(conn, old, old_root_key)
            patched = await self._patch(conn, old, old_root_key, outlook.dirty_scopes)
            # A crash until here leaves dirty nodes, which wait for the switch as dirty scopes do.
            generation = await self._new_generation(conn, living)
            root_key = wrap.new_key()
            root_wrap = await self._wrap_root(generation, root_key)
            canary = await self._make_canary(generation)
            # A crash until here leaves a generation under which nothing but a new root key lies.
            new = Tree(generation, old.root, root_wrap)
            known = await self._switch(conn, old, old_root_key, new, root_key, canary)
            done = known.written
            # A crash here leaves two generations in the custodian; the old one has no wrap in the
            # present tree, and dies when the seal runs again.
            # The rows that a collapse moved, and what was re-keyed before, are not among the known.
            await self._finish(conn, new, None if done.collapsed or patched else known)
            return SealResult(
                region=self._region,
                old_generation=old.generation,
                new_generation=generation,
                scopes=len(done.scopes) + len(done.dropped_scopes) + patched,
                nodes=len(done.nodes) + len(done.dropped_nodes),
                destroyed_at=datetime.now(UTC),
            )

    async def destroy_returned(self) -> list[int]:
        """Destroy root keys that were destroyed and came back; returns their generations."""
        async with self._pool.acquire(timeout=5) as conn:
            living = await self._living()
            # Most looks find nothing, and need no lock.
            if not await self._came_back(conn, living):
                return []
        async with self.alone() as conn:
            living = await self._living()
            returned = await self._came_back(conn, living)
            await self._destroy_returned(conn, living)
            return sorted(returned)

    async def _came_back(self, conn: Connection, living: Sequence[int]) -> set[int]:
        """
        Return what the custodian, or the tree's own rows, say was destroyed, and lies there.

        Rows are believed only beside a tree that opens: whoever writes them has no other power over
        keys, and must not have a living one destroyed.
        """
        returned = set(await self._custodian.returned(self._region))
        said = set(await generations.destroyed_among(conn, self._region, living)) - returned
        head = await nodes.tree(conn, self._region) if said else None
        if head is not None:
            with suppress(KeysError):
                await self._open(head)
                returned |= said
        return returned

    async def _destroy_returned(self, conn: Connection, living: Sequence[int]) -> list[int]:
        """Destroy what came back, for instance with a copy; returns what lives without it."""
        returned = await self._came_back(conn, living)
        for generation in sorted(returned):
            log.critical(
                "the destroyed root key of generation %d of %s came back to %s and opened what was "
                "sealed before; it is destroyed again: find the copy that it came from",
                generation,
                self._region,
                self._custodian.name,
            )
            await self._destroy(generation, None)
        return [generation for generation in living if generation not in returned]

    async def mirror(self) -> bool:
        """Bring the tree's copy in the bucket up to date; False when it is already."""
        async with self.alone() as conn:
            if not await self._mirror.needs_write(conn):
                return False
            head = await nodes.tree(conn, self._region)
            if head is None:
                raise RolledBackError
            await self._mirror.write(conn, await self._open(head), self.require_keyed)
            return True

    async def write_base(self, conn: Connection, root_key: bytes) -> None:
        """Write the whole tree's copy anew; the caller holds the region's seal lock."""
        await self._mirror.write(conn, root_key, self.require_keyed, base=True)

    async def unkeyed(self, conn: Connection, scopes: Sequence[UUID] | None = None) -> list[Damage]:
        """Return the rows of data keys that were lost: of these scopes, or of all."""
        found = await self._things.unkeyed(conn, self._region, scopes)
        return [damage.lost(self._region, key) for key in found]

    async def require_keyed(self, conn: Connection, scopes: Sequence[UUID] | None = None) -> None:
        """
        Raise `DamagedError` where the row of a living thing's data key was lost.

        What a fresh scope key or a new base replaces may be the last copy that opens.
        """
        if lost := await self.unkeyed(conn, scopes):
            raise DamagedError(self._what, lost)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Connection]:
        """Give a connection that holds the region's seal lock; waits for whoever has it."""
        async with self._pool.acquire(timeout=5) as conn:
            give_up_at = time.monotonic() + LOCK_WAIT_SECONDS
            while not await generations.try_lock(conn, self._region):
                if time.monotonic() > give_up_at:
                    raise KeysUnavailableError(f"another seal of {self._region} is going on")
                await asyncio.sleep(LOCK_POLL_SECONDS)
            try:
                yield conn
            finally:
                await self._let_go(conn)

    async def _let_go(self, conn: Connection) -> None:
        """Unlock, or else end the session, which must not go back to the pool with the lock."""
        try:
            await generations.unlock(conn, self._region)
        except BaseException:
            conn.terminate()
            raise

    async def _outlook(self, conn: Connection, living: Sequence[int]) -> Outlook:
        found = await generations.outlook(conn, self._region, living)
        if found is None:
            raise RolledBackError
        return found

    async def _open(self, head: Tree) -> bytes:
        context = wrap.root_context(self._region, head.generation)
        try:
            return await self._custodian.unwrap(
                self._region, head.generation, head.root_wrap, context
            )
        except KeyDestroyedError:
            raise RolledBackError from None
        except IntegrityError:
            found = damage.root_wrap(self._region, head.generation)
            raise DamagedError(self._what, [found]) from None

    @property
    def _what(self) -> str:
        return f"{self._region} is not sealed or mirrored"

    async def _require_sound(self, conn: Connection, head: Tree, root_key: bytes) -> None:
        """Raise `DamagedError` unless all opens that the seal re-keys and that it mirrors."""
        finder = Finder(self._region, head.root, root_key)
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            async for row in self._dirty_rows(conn, head):
                finder.open(row)
            if await self._mirror.is_next_base(conn):
                await self.require_keyed(conn)
            async for row in await self._mirror.next_rows(conn, head):
                finder.open(row)
        finder.require_sound(self._what)

    async def _dirty_rows(self, conn: Connection, head: Tree) -> AsyncIterator[Row]:
        """Yield what the seal will re-key, from the root down, a step's scopes at a time."""
        region, last = self._region, None
        while True:
            scopes = await data_keys.dirty_after(conn, region, last, SCOPES_IN_ONE_STEP)
            leaves = list({scope.node for scope in scopes})
            above = await nodes.nodes_above(conn, region, leaves, head.root, dirty=last is None)
            if head.root not in above:
                lost = Damage(region, "is missing", "key_node", str(head.root))
                raise DamagedError(self._what, [lost])
            above = await self._with_only_child(conn, above, head.root)
            wraps = await self._wraps_of(conn, scopes)
            for row in mirror_rows.from_the_root(above.values(), scopes, wraps):
                yield row
            if len(scopes) < SCOPES_IN_ONE_STEP:
                return
            last = scopes[-1].id

    async def _clear(self, conn: Connection, living: Sequence[int], head: Tree) -> None:
        """Finish what was left half done; only who holds the lock may."""
        # What a killed seal had only named, and what a primary that is no more had, is given up.
        await generations.retire_intended(conn, self._region)
        await generations.adopt(conn, self._region, living)
        await self._finish(conn, head)

    async def _new_generation(self, conn: Connection, living: Sequence[int]) -> int:
        """Name a number that was never used, here or at the custodian, and have its key made."""
        highest = max(living, default=0)
        generation = await generations.name_generation(conn, self._region, highest)
        await self._custodian.create(self._region, generation)
        return generation

    async def _living(self) -> list[int]:
        return await self._custodian.generations(self._region)

    async def _wrap_root(self, generation: int, root_key: bytes) -> bytes:
        context = wrap.root_context(self._region, generation)
        return await self._custodian.wrap(self._region, generation, root_key, context)

    async def _make_canary(self, generation: int) -> bytes:
        return await self._custodian.wrap(
            self._region, generation, os.urandom(wrap.KEY_BYTES), CANARY_CONTEXT
        )

    async def _patch(self, conn: Connection, head: Tree, root_key: bytes, dirty: int) -> int:
        """Re-key, under the nodes' present keys, what would be too much for the switch."""
        region, patched = self._region, 0
        while dirty > SCOPES_IN_ONE_STEP:
            async with conn.transaction():
                await self._lock_tree(conn, head)
                scopes, wraps = await self._take_dirty(conn, SCOPES_IN_ONE_STEP)
                leaves = list({scope.node for scope in scopes})
                above = await nodes.nodes_above(conn, region, leaves, head.root)
                done = patch(region, above, head.root, root_key, scopes, wraps, wrap.new_key)
                await rekeyed_rows.write_rekeyed(conn, region, done)
                patched += len(scopes)
            dirty = await data_keys.dirty_scopes(conn, region)
        return patched

    async def _switch(
        self,
        conn: Connection,
        old: Tree,
        old_root_key: bytes,
        new: Tree,
        root_key: bytes,
        canary: bytes,
    ) -> Known:
        """Re-key all that is dirty and put the root under the new generation, in one step."""
        region = self._region
        async with conn.transaction():
            await self._lock_tree(conn, old)
            scopes, wraps = await self._take_dirty(conn)
            leaves = list({scope.node for scope in scopes})
            above = await nodes.nodes_above(conn, region, leaves, old.root, dirty=True)
            above = await self._with_only_child(conn, above, old.root)
            done = rekey(
                region, above, old.root, old_root_key, scopes, wraps, root_key, wrap.new_key
            )
            mark = await rekeyed_rows.write_rekeyed(conn, region, done)
            if not await generations.switch(conn, region, new.generation, canary, new.root_wrap):
                raise KeysUnavailableError(f"another seal of {region} was faster")
        return Known(mark, done)

    async def _with_only_child(
        self, conn: Connection, above: dict[int, Node], root: int
    ) -> dict[int, Node]:
        """Return the nodes, and the only one right below the root, whose page it will take over."""
        if above[root].level == 0 or above[root].used.bit_count() != 1:
            return above
        return {**await nodes.children(conn, self._region, root), **above}

    async def _lock_tree(self, conn: Connection, head: Tree) -> None:
        """Lock the tree; raises when the seal's lock was lost and another seal came between."""
        now = await nodes.change(conn, self._region)
        if now is None or now.generation != head.generation:
            raise KeysUnavailableError(f"another seal of {self._region} was faster")

    async def _take_dirty(
        self, conn: Connection, limit: int | None = None
    ) -> tuple[list[Scope], list[WrappedKey]]:
        scopes = await data_keys.take_dirty_scopes(conn, self._region, limit)
        return scopes, await self._wraps_of(conn, scopes)

    async def _wraps_of(self, conn: Connection, scopes: Sequence[Scope]) -> list[WrappedKey]:
        """Return all that hangs on scopes; raises `DamagedError` where something of it was lost."""
        identities = [scope.id for scope in scopes]
        await self.require_keyed(conn, identities)
        return await data_keys.data_keys(conn, identities)

    async def _finish(self, conn: Connection, head: Tree, known: Known | None = None) -> None:
        """Mirror, gate, destroy: what is left to do once the tree names a newer generation."""
        retired = await generations.retired(conn, self._region)
        if not retired:
            return
        root_key = await self._open(head)
        if known is None:
            # Of what was re-keyed, and is in no segment yet, only the database has the wraps.
            await self.require_keyed(conn, await mirror_rows.changed_scopes(conn, self._region))
        mirrored = await self._mirror.write(conn, root_key, self.require_keyed, known=known)
        # A crash here leaves a segment more than is needed.
        await self._gate(conn, mirrored, root_key)
        for generation, canary in retired:
            await self._destroy(generation, canary)
        # A crash until here leaves generations that are destroyed again.
        await generations.set_destroyed(conn, self._region, [number for number, _ in retired])

    async def _destroy(self, generation: int, canary: bytes | None) -> None:
        if canary is None:
            # It was never in use, or not here; while it lives it can still wrap.
            with suppress(KeysError):
                canary = await self._make_canary(generation)
        await self._custodian.destroy(self._region, generation)
        # Without one the custodian is asked about bytes that nobody made: that the key is gone has
        # to be said all the same.
        await self._check_dead(generation, canary or os.urandom(wrap.KEY_BYTES))

    async def _gate(self, conn: Connection, mirrored: Tree, root_key: bytes) -> None:
        """
        Make sure that nobody needs what is retired, from what is committed and mirrored now.

        The present root opens, the mirror holds the tree under the same generation, and every
        standby that could be promoted has replayed the switch. That what was re-keyed has all of
        its data keys was made sure before it was re-keyed, and before it was mirrored.
        """
        head, root = await nodes.top(conn, self._region)
        if (head.generation, head.root_wrap) != (mirrored.generation, mirrored.root_wrap):
            raise KeysUnavailableError(f"another seal of {self._region} was faster")
        wrap.decrypt_page(root_key, root.page, wrap.page_context(self._region, root.id, root.epoch))
        await wait_for_standbys(conn, self._standbys, STANDBY_WAIT_SECONDS)

    async def _check_dead(self, generation: int, canary: bytes) -> None:
        try:
            await self._custodian.unwrap(self._region, generation, canary, CANARY_CONTEXT)
        except KeyDestroyedError:
            return
        except IntegrityError:
            # It is some key's answer: only that there is none counts.
            pass
        raise CustodianUnavailableError(
            f"the custodian does not say that generation {generation} of {self._region} is gone, "
            "after destroying it; nothing is marked irrecoverable"
        )
