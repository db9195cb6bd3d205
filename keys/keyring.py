"""
The keyring: what the vault calls. Creates and opens data keys, destroys them, and seals.

Nothing here calls the custodian on the path of a document: scope keys are kept unwrapped for
`cache_seconds`, counted from before they were read, so that a key that a seal made unreachable is
in no cache once that time has passed since the old generation was destroyed.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from keys import damage, data_keys, generations, nodes, wrap
from keys.custodian import Custodian, destroy_elsewhere
from keys.damage import DAMAGES_MAX, Damage, DamagedError, Finder, Met, PassedOver
from keys.data_keys import FIRST_EPOCH, add_scope
from keys.errors import (
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
    KeysUnavailableError,
    RolledBackError,
    SealOverdueError,
    StaleScopeError,
)
from keys.ground.cache import Cache, Lookups
from keys.ground.postgres import AWAY, Connection, Pool
from keys.mirror import Bucket, Mirror
from keys.mirror_rows import look
from keys.repair import BackupKeys, Inside, Mend, Repair, Shredded, damaged_canaries
from keys.restore import Merged, Restore
from keys.seal import Living, Seal, SealResult
from keys.status import KeyStatus, Walk, look_at_leaves, seal_overdue, status, walk
from keys.stream import DataKey
from keys.tree import WrappedKey, open_path

__all__ = ["DataKey", "KeyStatus", "Keyring", "Mend", "Merged", "SealResult", "Walk", "WrappedKey"]

#: How often a path is read again when a seal replaced its root while the custodian was asked.
ATTEMPTS = 5
#: To so many scopes, found by chance, readiness tries the path.
SCOPES_TRIED = 3


class Keyring:
    """The key trees of all regions, over one database and each region's custodian."""

    def __init__(
        self,
        pool: Pool,
        custodians: Mapping[str, Custodian],
        buckets: Mapping[str, Bucket],
        living: Living,
        *,
        standbys: Sequence[str] = (),
        cache_seconds: float,
        cache_entries: int = 4096,
    ) -> None:
        self._pool, self._custodians, self._buckets = pool, custodians, buckets
        self._living, self._standbys = living, standbys
        self._refused = set[str]()
        #: What lies in the regions' buckets and does not verify.
        self.passed_over = PassedOver()
        #: How often something damaged was asked for.
        self.met = Met()
        self._roots = Cache[tuple[str, int], bytes](cache_seconds, cache_entries)
        self._scopes = Cache[UUID, tuple[int, bytes]](cache_seconds, cache_entries)
        self._root_lookups = Lookups[tuple[str, int], bytes]()
        self._scope_lookups = Lookups[UUID, tuple[int, bytes]]()

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._custodians)})"

    async def start_region(self, region: str) -> None:
        """Make the region's tree where there is none; raises `RolledBackError` if it is too old."""
        mirror = self._mirror(region)
        async with self._connection() as conn:
            head = await nodes.tree(conn, region)
            mirrored = await mirror.require_not_behind(conn)
        if head is None:
            await self._seal(region).start_tree()
        if not mirrored:
            await self._seal(region).mirror()
        if head is None:
            return
        await self.destroy_returned(region)
        # Another process may have sealed since the row was read; then there is nothing to learn.
        with suppress(StaleScopeError):
            await self._root_key(region, head)

    async def create_scope(
        self, conn: Connection, region: str, scope: UUID, first: UUID
    ) -> tuple[DataKey, WrappedKey]:
        """
        Make a scope and its first data key, in the caller's transaction.

        Holds the tree's row, so a seal of the region waits until the transaction ends.
        """
        head = await nodes.change(conn, region)
        if head is None:
            raise RolledBackError
        root_key = await self._root_key(region, head)
        scope_key = await add_scope(conn, region, head, root_key, scope)
        data_key = DataKey(wrap.new_key())
        wrapped = _wrap(data_key, region, scope, first, FIRST_EPOCH, scope_key)
        if await data_keys.keep(conn, [wrapped]):
            raise StaleScopeError
        return data_key, wrapped

    async def create_empty_scope(self, conn: Connection, region: str, scope: UUID) -> None:
        """
        Make a scope without a key, in the caller's transaction.

        It is dirty from the start: if it is empty at the next seal it is dropped, and whoever still
        wraps under it is told by `StaleScopeError` or `KeyDestroyedError`. So it is for things that
        come and go, and for a first key that is kept in a transaction of its own (`settle`).
        """
        head = await nodes.change(conn, region)
        if head is None:
            raise RolledBackError
        await add_scope(conn, region, head, await self._root_key(region, head), scope)
        await data_keys.mark_dirty(conn, region, [scope])
        # A scope of this name may have been dropped; its key is not this one's.
        self._scopes.drop(scope)

    async def settle(self, conn: Connection, region: str, scope: UUID) -> None:
        """
        Take a new scope's dirt away, in the caller's transaction, before `keep_keys`.

        Only for the first wrap that was ever sent under it: no WAL has another one. Before, since a
        seal takes the mark first and the scope then, too, so neither waits for the other for ever.
        """
        await data_keys.unmark_dirty(conn, region, scope)

    async def new_key(self, region: str, scope: UUID, identity: UUID) -> tuple[DataKey, WrappedKey]:
        """Make a data key, known to nobody until a statement with `kept_keys` keeps it."""
        epoch, scope_key = await self._scope_key(region, scope)
        key = DataKey(wrap.new_key())
        return key, _wrap(key, region, scope, identity, epoch, scope_key)

    async def rewrap(self, key: DataKey, stale: WrappedKey) -> WrappedKey:
        """Wrap a key again after its scope was re-keyed."""
        cached = self._scopes.find(stale.scope)
        if cached is not None and cached[0] == stale.scope_epoch:
            self._scopes.drop(stale.scope)
        epoch, scope_key = await self._scope_key(stale.region, stale.scope)
        return _wrap(key, stale.region, stale.scope, stale.id, epoch, scope_key)

    async def keep_keys(self, conn: Connection, keys: Sequence[WrappedKey]) -> set[UUID]:
        """
        Keep data keys in a statement of their own, in the caller's transaction.

        Returns the ids of those that were not kept, since their scope was re-keyed or dropped after
        they were wrapped: `rewrap` them. Waits for a seal that has their scopes. Documents and
        faxes are kept by the same SQL, embedded in the statement that stores a group of them.
        """
        return await data_keys.keep(conn, keys)

    async def open_key(self, wrapped: WrappedKey) -> DataKey:
        """Unwrap; raises `StaleScopeError` when the row was read before a seal or a shred."""
        cached = self._scopes.find(wrapped.scope)
        if cached is None or cached[0] != wrapped.scope_epoch:
            self._scopes.drop(wrapped.scope)
            try:
                cached = await self._scope_key(wrapped.region, wrapped.scope)
            except KeyDestroyedError:
                raise StaleScopeError from None
        epoch, scope_key = cached
        if epoch != wrapped.scope_epoch:
            raise StaleScopeError
        context = wrap.data_key_context(wrapped.region, wrapped.scope, epoch, wrapped.id)
        try:
            return DataKey(wrap.unwrap(scope_key, wrapped.wrap, context))
        except IntegrityError:
            raise DamagedError("a key is damaged", [damage.wrapped(wrapped)]) from None

    async def open_key_within(self, conn: Connection, wrapped: WrappedKey) -> DataKey:
        """
        Unwrap by the tree as the caller's transaction sees it, for a restore that is not committed.

        Raises `StaleScopeError` when the tree has no such scope, and `IntegrityError`.
        """
        region, scope = wrapped.region, wrapped.scope
        path = await nodes.scope_path(conn, region, scope)
        if path is None or path.scope.epoch != wrapped.scope_epoch:
            raise StaleScopeError
        root_key = await self._root_key(region, path.tree)
        scope_key = open_path(region, path.nodes, root_key, path.scope.slot)
        context = wrap.data_key_context(region, scope, wrapped.scope_epoch, wrapped.id)
        return DataKey(wrap.unwrap(scope_key, wrapped.wrap, context))

    async def doubt(self, conn: Connection, region: str, scope: UUID) -> None:
        """
        Have the next seal give a scope a fresh key, in the caller's transaction.

        For a wrap that was sent to the database and not kept: its WAL may have it all the same.
        """
        self._require(region)
        if await nodes.tree(conn, region, "for share") is None:
            raise RolledBackError
        await data_keys.mark_dirty(conn, region, [scope])

    async def destroy_keys(self, conn: Connection, region: str, keys: Sequence[UUID]) -> int:
        """
        Take data keys out of the tree, in the caller's transaction; returns the generation.

        They are irrecoverable once every generation up to that one is destroyed. Of one whose row
        was lost before, others may have a copy: every scope that it may have hung on is dirty, too.
        """
        self._require(region)
        head = await nodes.tree(conn, region, "for share")
        if head is None:
            raise RolledBackError
        lost = await data_keys.delete_data_keys(conn, region, keys, head.generation)
        if lost:
            scopes = await self._living.scopes_of(conn, region, lost)
            await data_keys.mark_dirty(conn, region, scopes)
        return head.generation

    async def seal(self, region: str, *, force: bool = False) -> SealResult | None:
        """Replace the root generation and destroy the old one; None when nothing was dirty."""
        self._require(region)
        try:
            return await self._seal(region).run(force=force)
        except AWAY as error:
            raise KeysUnavailableError from error
        finally:
            self.forget()

    async def destroy_returned(self, region: str) -> list[int]:
        """Destroy root keys of the region that came back, to any region's custodian; which."""
        self._require(region)
        try:
            found = await self._seal(region).destroy_returned()
            return sorted({*found, *await destroy_elsewhere(self._custodians, region)})
        except AWAY as error:
            raise KeysUnavailableError from error

    async def needs_seal(self, region: str) -> bool:
        """Whether something was destroyed since the last seal, or a seal was left half done."""
        async with self._connection() as conn:
            return await generations.waits_for_seal(conn, region)

    async def require_sealed(self, region: str, seconds_max: float) -> None:
        """Raise `SealOverdueError` when something has been waiting for a seal for longer."""
        async with self._connection() as conn:
            waiting = await generations.waiting_seconds(conn, region)
        if waiting > seconds_max:
            raise SealOverdueError(seal_overdue(region, waiting))

    async def destroyed_generation(
        self, conn: Connection, region: str
    ) -> tuple[int, datetime] | None:
        """Return the generation up to which all are destroyed, and when the last of them was."""
        return await generations.destroyed_generation(conn, region)

    async def mirror(self, region: str) -> bool:
        """Bring the tree's copy in the bucket up to date; False when it is already."""
        self._require(region)
        try:
            return await self._seal(region).mirror()
        except AWAY as error:
            raise KeysUnavailableError from error

    async def restore(self, conn: Connection, region: str) -> Merged:
        """Put the newest known tree into a rolled back database, in the caller's transaction."""
        try:
            return await Restore(self._mirror(region), self._custodians[region], region).run(conn)
        finally:
            self.forget()

    async def status(self, conn: Connection, region: str) -> KeyStatus:
        """Return the measures of a region's tree."""
        return await status(conn, region, self._custodians[region])

    async def verify(self, region: str) -> Walk:
        """
        Open every key of the region's tree as it is at one moment, and read its mirror.

        What lives and has no key is a finding. Needs no rest from others.
        """
        async with self._connection() as conn:
            async with conn.transaction():
                await look(conn)
                head = await nodes.tree(conn, region)
                if head is None:
                    raise RolledBackError
                try:
                    root_key = await self._open_root(region, head)
                except DamagedError as error:
                    # Without it nothing else can be judged.
                    return Walk(region, head.generation, 0, 0, 0, error.damages)
                found = await walk(conn, region, head, root_key)
                lost = await self._living.unkeyed(conn, region, None)
            others = [damage.lost(region, key) for key in lost[:DAMAGES_MAX]]
            others += [
                damage.canary(region, generation)
                for generation in await damaged_canaries(conn, self._custodians[region], region)
            ]
            others += await self._mirror(region).check(conn)
        return replace(found, findings=(*found.findings, *others))

    def over(self, pool: Pool) -> "Keyring":
        """Return a keyring of its own over another pool, such as one open transaction."""
        return Keyring(pool, self._custodians, self._buckets, self._living, cache_seconds=0.0)

    async def look_at_tree(self, region: str, after: int) -> tuple[list[Damage], int | None]:
        """Open some leaves of the tree, and what hangs on them; returns the last if more follow."""
        async with self._connection() as conn, conn.transaction():
            await look(conn)
            head = await nodes.tree(conn, region)
            if head is None:
                raise RolledBackError
            try:
                root_key = await self._open_root(region, head)
            except DamagedError as error:
                return list(error.damages), None
            return await look_at_leaves(conn, region, head, root_key, after)

    async def look_at_mirror(self, region: str, after: str) -> tuple[list[Damage], str | None]:
        """Read one segment of the mirror, the newest first; returns where the next one is."""
        mirror, custodian = self._mirror(region), self._custodians[region]
        async with self._connection() as conn:
            following = await mirror.look(conn, after)
            if following:
                return [], following
            found = await damaged_canaries(conn, custodian, region)
            canaries = [damage.canary(region, generation) for generation in found]
            # What did not verify may have been replaced meanwhile, so all of it is looked at.
            return canaries + (await mirror.check(conn) if following is None else []), None

    async def repair(
        self,
        region: str,
        shredded: Shredded,
        *,
        dry_run: bool,
        inside: Inside | None = None,
        backup: BackupKeys | None = None,
    ) -> list[Mend]:
        """Mend the region's tree from its mirror, and the mirror from the tree."""
        mirror, custodian = self._mirror(region), self._custodians[region]
        try:
            repair = Repair(self._seal(region), mirror, custodian, region, shredded, backup)
            return await repair.run(dry_run=dry_run, inside=inside)
        except AWAY as error:
            raise KeysUnavailableError from error
        finally:
            self.forget()

    async def check(self, region: str) -> None:
        """Have the custodian unwrap the region's root key, past the cache; raises when it fails."""
        self._require(region)
        async with self._connection() as conn:
            head = await nodes.tree(conn, region)
        if head is None:
            raise RolledBackError
        # A seal that replaced the generation meanwhile has used the custodian, too.
        with suppress(StaleScopeError):
            await self._open_root(region, head)

    async def check_tree(self, region: str) -> None:
        """
        Open the root's page and the paths to a few scopes, as they lie now; raises `DamagedError`.

        One that opens will do: what is damaged below the root is for the look at rest to name.
        """
        async with self._connection() as conn:
            head, root = await nodes.top(conn, region)
            scopes = await nodes.some_scopes(conn, region, SCOPES_TRIED)
            paths = [await nodes.scope_path(conn, region, scope) for scope in scopes]
        with suppress(StaleScopeError):
            root_key = await self._root_key(region, head)
            finder = Finder(region, head.root, root_key)
            finder.open(root)
            finder.require_sound("the key tree is damaged")
            failed = list[DamagedError]()
            # Of one moment each: another that a seal came before says nothing of this tree.
            for path in (path for path in paths if path and path.tree == head):
                try:
                    _open_path(region, path, root_key)
                except DamagedError as error:
                    failed.append(error)
                else:
                    return
            if failed:
                raise failed[0]

    def refuse(self, region: str) -> None:
        """Serve no key of the region any more: its database was rolled back."""
        self._refused.add(region)
        self.forget()

    def _require(self, region: str) -> None:
        if region in self._refused:
            raise RolledBackError

    def forget(self) -> None:
        """Drop every unwrapped key."""
        for kept in (self._roots, self._scopes, self._root_lookups, self._scope_lookups):
            kept.clear()

    def _seal(self, region: str) -> Seal:
        mirror = self._mirror(region)
        return Seal(
            self._pool, self._custodians[region], mirror, region, self._living, self._standbys
        )

    def _mirror(self, region: str) -> Mirror:
        return Mirror(self._buckets[region], self._custodians[region], region, self.passed_over)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.acquire(timeout=5) as conn:
                yield conn
        except AWAY as error:
            raise KeysUnavailableError from error

    async def _scope_key(self, region: str, scope: UUID) -> tuple[int, bytes]:
        """Return the scope's epoch and key; raises `KeyDestroyedError` when there is no scope."""
        self._require(region)
        cached = self._scopes.find(scope)
        if cached is not None:
            return cached
        return await self._scope_lookups.share(scope, lambda: self._open_scope(region, scope))

    async def _open_scope(self, region: str, scope: UUID) -> tuple[int, bytes]:
        for _ in range(ATTEMPTS):
            read_at = time.monotonic()
            async with self._connection() as conn:
                path = await nodes.scope_path(conn, region, scope)
            if path is None:
                raise KeyDestroyedError
            try:
                root_key = await self._root_key(region, path.tree)
            except StaleScopeError:
                continue
            found = path.scope.epoch, _open_path(region, path, root_key)
            self._scopes.keep(scope, found, read_at)
            return found
        raise StaleScopeError

    async def _root_key(self, region: str, head: nodes.Tree) -> bytes:
        """Return the root's key; raises `StaleScopeError` when a seal destroyed it meanwhile."""
        self._require(region)
        name = region, head.generation
        cached = self._roots.find(name)
        if cached is not None:
            return cached
        return await self._root_lookups.share(name, lambda: self._open_root(region, head))

    async def _open_root(self, region: str, head: nodes.Tree) -> bytes:
        read_at = time.monotonic()
        context = wrap.root_context(region, head.generation)
        custodian = self._custodians[region]
        try:
            root_key = await custodian.unwrap(region, head.generation, head.root_wrap, context)
        except (KeyDestroyedError, KeyMissingError) as error:
            async with self._connection() as conn:
                now = await nodes.tree(conn, region)
            if now is not None and now.generation != head.generation:
                raise StaleScopeError from None
            if isinstance(error, KeyMissingError):
                raise
            raise RolledBackError from None
        except IntegrityError:
            found = damage.root_wrap(region, head.generation)
            raise DamagedError("a root key is damaged", [found]) from None
        self._roots.keep((region, head.generation), root_key, read_at)
        return root_key


def _open_path(region: str, path: nodes.Path, root_key: bytes) -> bytes:
    """Return the key of the scope at a path's end; raises `DamagedError`."""
    try:
        return open_path(region, path.nodes, root_key, path.scope.slot)
    except IntegrityError:
        finder = Finder(region, path.tree.root, root_key)
        for node in path.nodes:
            finder.open(node)
        finder.open(path.scope)
        finder.require_sound("the key tree is damaged")
        raise


def _wrap(
    key: DataKey, region: str, scope: UUID, identity: UUID, epoch: int, scope_key: bytes
) -> WrappedKey:
    context = wrap.data_key_context(region, scope, epoch, identity)
    return WrappedKey(identity, region, scope, epoch, wrap.wrap(scope_key, key.reveal(), context))
