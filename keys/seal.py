"""
The seal: replace a region's root generation and destroy the old one.

One at a time per region, across processes, by a lock that dies with its session. Every step is
driven by what is stored, so a seal that was killed between any two is finished by the next one. The
comments say what a crash leaves. The tree's copy in the bucket and the check of standbys are not
part of it yet.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from keys import data_keys, generations, nodes, wrap
from keys.custodian import Custodian
from keys.errors import (
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeysUnavailableError,
    RolledBackError,
)
from keys.nodes import Tree
from keys.rows import Connection, Pool
from keys.tree import Rekeyed, empty_node, rekey

LOCK_WAIT_SECONDS = 30.0
LOCK_POLL_SECONDS = 0.05
CANARY_CONTEXT = b"portvault/canary/v1"


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
    """The seal of one region."""

    def __init__(self, pool: Pool, custodian: Custodian, region: str) -> None:
        self._pool, self._custodian, self._region = pool, custodian, region

    async def plant(self) -> None:
        """Make the region's tree with its first generation, where there is none."""
        async with self._alone() as conn:
            if await nodes.tree(conn, self._region) is not None:
                return
            await generations.retire_intended(conn, self._region)
            generation = await self._new_generation(conn)
            root_key = wrap.new_key()
            root_wrap = await self._wrap_root(generation, root_key)
            async with conn.transaction():
                root = empty_node(self._region, await nodes.next_node(conn), 0, root_key)
                await nodes.insert_node(conn, self._region, root)
                await generations.activate(conn, self._region, generation)
                await nodes.insert_tree(conn, self._region, Tree(generation, root.id, root_wrap))

    async def run(self, *, force: bool) -> SealResult | None:
        """Seal when something is dirty or half done, or anyway with `force`."""
        async with self._alone() as conn:
            # Who holds the lock may give up what a killed seal had only named.
            await generations.retire_intended(conn, self._region)
            await self._destroy_retired(conn)
            if not force and not await generations.waits_for_seal(conn, self._region):
                return None
            old, old_root_key = await self._open_root(conn)
            generation = await self._new_generation(conn)
            root_key = wrap.new_key()
            root_wrap = await self._wrap_root(generation, root_key)
            # A crash until here leaves a generation under which nothing but a new root key lies.
            done = await self._switch(
                conn, old, old_root_key, Tree(generation, old.root, root_wrap), root_key
            )
            # A crash here leaves two generations in the custodian; the old one has no wrap in the
            # present tree, and dies when the seal runs again.
            await self._destroy_retired(conn)
            return SealResult(
                region=self._region,
                old_generation=old.generation,
                new_generation=generation,
                scopes=len(done.scopes) + len(done.dropped_scopes),
                nodes=len(done.nodes) + len(done.dropped_nodes),
                destroyed_at=datetime.now(UTC),
            )

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
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

    async def _open_root(self, conn: Connection) -> tuple[Tree, bytes]:
        head = await nodes.tree(conn, self._region)
        if head is None:
            raise RolledBackError
        context = wrap.root_context(self._region, head.generation)
        try:
            key = await self._custodian.unwrap(
                self._region, head.generation, head.root_wrap, context
            )
        except KeyDestroyedError:
            raise RolledBackError from None
        return head, key

    async def _new_generation(self, conn: Connection) -> int:
        """Name a number that was never used, here or at the custodian, and have its key made."""
        living = await self._custodian.generations(self._region)
        generation = await generations.name_generation(conn, self._region, max(living, default=0))
        await self._custodian.create(self._region, generation)
        canary = await self._custodian.wrap(
            self._region, generation, os.urandom(wrap.KEY_BYTES), CANARY_CONTEXT
        )
        await generations.set_canary(conn, self._region, generation, canary)
        return generation

    async def _wrap_root(self, generation: int, root_key: bytes) -> bytes:
        context = wrap.root_context(self._region, generation)
        return await self._custodian.wrap(self._region, generation, root_key, context)

    async def _switch(
        self, conn: Connection, old: Tree, old_root_key: bytes, new: Tree, root_key: bytes
    ) -> Rekeyed:
        """Re-key all that is dirty and put the root under the new generation, in one step."""
        region = self._region
        async with conn.transaction():
            await conn.execute("set constraints all deferred")
            head = await nodes.tree(conn, region, "for update")
            intended = await generations.is_intended(conn, region, new.generation)
            if head is None or head.generation != old.generation or not intended:
                # The lock was lost with its session and another seal came in between.
                raise KeysUnavailableError(f"another seal of {region} was faster")
            scopes = await data_keys.lock_dirty_scopes(conn, region)
            above = await nodes.nodes_above(
                conn, region, [scope.node for scope in scopes], old.root
            )
            wraps = await data_keys.data_keys(conn, [scope.id for scope in scopes])
            done = rekey(
                region, above, old.root, old_root_key, scopes, wraps, root_key, wrap.new_key
            )
            await data_keys.update_data_keys(conn, done.wraps)
            await data_keys.update_scopes(conn, region, done.scopes)
            await data_keys.delete_scopes(conn, region, done.dropped_scopes)
            await nodes.update_nodes(conn, region, done.nodes)
            await nodes.delete_nodes(conn, region, done.dropped_nodes)
            await nodes.switch(conn, region, new)
        return done

    async def _destroy_retired(self, conn: Connection) -> None:
        """Destroy what no tree names any more, but only while the present root opens."""
        retired = await generations.retired(conn, self._region)
        if not retired:
            return
        head = await self._gate(conn)
        for generation, canary in retired:
            if generation == head.generation:
                raise RolledBackError
            await self._custodian.destroy(self._region, generation)
            if canary is not None:
                await self._check_dead(generation, canary)
            await generations.set_destroyed(conn, self._region, generation)

    async def _gate(self, conn: Connection) -> Tree:
        """Read again, from what is committed, that the present root opens and its page with it."""
        head, root_key = await self._open_root(conn)
        root = (await nodes.nodes_above(conn, self._region, [], head.root))[head.root]
        wrap.open_page(root_key, root.page, wrap.page_context(self._region, root.id, root.epoch))
        return head

    async def _check_dead(self, generation: int, canary: bytes) -> None:
        try:
            await self._custodian.unwrap(self._region, generation, canary, CANARY_CONTEXT)
        except (KeyDestroyedError, IntegrityError):
            return
        raise CustodianUnavailableError(
            f"the custodian still opens generation {generation} of {self._region} after destroying "
            "it; nothing is marked irrecoverable"
        )
