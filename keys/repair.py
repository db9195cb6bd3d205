"""
Repair: put back what is damaged in a key tree, from the copy of it that is sound.

The database's rows are mended from the mirror's segments, the mirror from the database, and a data
key that no segment has from a backup, where the caller names one. Nothing is believed for where it
lies: a copy is taken only when it opens, under the keys that stand above it now, in the very place
and at the very epoch that the row has now. So no copy from before a seal fits, and what was
shredded has no place that it could fit in; that a key left the tree is asked of the tree, of the
mirror and of the caller's log besides.

One transaction, under the region's seal lock; the mirror is written anew after it, and only from a
tree all of which opens.
"""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from keys import damage, data_keys, generations, nodes, wrap
from keys.custodian import Custodian
from keys.damage import Damage
from keys.errors import (
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
    KeysError,
    RolledBackError,
    StaleScopeError,
)
from keys.ground.postgres import Connection
from keys.mirror import Mirror
from keys.nodes import Tree
from keys.seal import CANARY_CONTEXT, Seal
from keys.segment import Gone, Header, check_used
from keys.status import walk
from keys.tree import Node, WrappedKey, node_key, open_path

#: What is left where neither mirror nor backup has a data key as it was last wrapped.
_LEFT_TO_DO = (
    "Where there is none: `portvault restore` of a base backup with its WAL up to the damage, or "
    "shred what it is the key of, as lost (a document that the retention policy keeps needs an "
    "approval of document.mistake: `portvault approval request`)"
)
_NOT_IN_BACKUP = "neither the mirror nor the backup has it: name a later backup"
_TOO_OLD = (
    "the backup is too old for this row: since then a seal gave its scope another key, and nothing "
    "opens what was wrapped before. Name a later backup, from before the damage"
)
_NOT_ITS_OWN = (
    "what the backup has as this row does not open under its scope: it was damaged or altered "
    "there, too. Name another backup"
)
#: A tree is no deeper; each level that is mended may show damage below it.
LEVELS_MAX = 12

#: Says which of these keys' things were shredded, whatever their rows say.
Shredded = Callable[[Connection, Collection[UUID]], Awaitable[set[UUID]]]
#: Returns the data keys of a region that a backup has of those sought, as nobody vouches for them;
#: None for one that the backup has and that cannot be read.
BackupKeys = Callable[[str, Collection[UUID]], Awaitable[Mapping[UUID, WrappedKey | None]]]
#: Looks at what hangs on the tree, in the transaction of a dry run.
Inside = Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Mend:
    """One thing that was damaged: whether it was mended, and from what, or what is to be done."""

    damage: Damage
    mended: bool
    how: str


@dataclass(slots=True)
class Copies:
    """What the mirror has of what is wanted, newest first, and what it saw leave the tree."""

    headers: list[Header] = field(default_factory=list)
    rows: dict[int | UUID, list[Node | WrappedKey]] = field(default_factory=dict)
    gone: set[UUID] = field(default_factory=set)


class Repair:
    """The repair of one region's tree."""

    def __init__(
        self,
        seal: Seal,
        mirror: Mirror,
        custodian: Custodian,
        region: str,
        shredded: Shredded,
        backup: BackupKeys | None = None,
    ) -> None:
        self._seal, self._mirror, self._custodian = seal, mirror, custodian
        self._region, self._shredded, self._backup = region, shredded, backup

    async def run(self, *, dry_run: bool, inside: Inside | None = None) -> list[Mend]:
        """
        Mend what can be, or with `dry_run` say what would be.

        A dry run calls `inside` where everything is as it would be. Raises `RolledBackError`, which
        only a restore mends.
        """
        async with self._seal.alone() as conn:
            await self._mirror.require_not_behind(conn)
            transaction = conn.transaction()
            await transaction.start()
            try:
                # A dry run changes nothing, and keeps no upload and no shred waiting.
                lock = "" if dry_run else "for update"
                mends, root_key = await self._mend_tree(conn, lock)
                if dry_run and inside is not None:
                    await inside(conn)
            except BaseException:
                await transaction.rollback()
                raise
            await (transaction.rollback() if dry_run else transaction.commit())
            damaged = await self._mirror.check(conn)
            if damaged:
                sound = root_key is not None and all(mend.mended for mend in mends)
                if sound and root_key is not None and not dry_run:
                    await self._seal.write_base(conn, root_key)
                mends += [_mirror_mend(item, sound=sound) for item in damaged]
            return mends

    async def _mend_tree(self, conn: Connection, lock: str) -> tuple[list[Mend], bytes | None]:
        head = await nodes.tree(conn, self._region, lock)
        if head is None:
            raise RolledBackError
        root_key, mends = await self._root_key(conn, head)
        if root_key is None:
            return mends, None
        mends += await self._mend_canaries(conn)
        tried = set[tuple[str | None, str | None]]()
        left = list[Damage]()
        for _ in range(LEVELS_MAX):
            found = await walk(conn, self._region, head, root_key)
            left = [item for item in found.findings if _id_of(item) is None]
            missing = await self._seal.unkeyed(conn)
            damages = [*found.findings, *missing]
            known = [item for item in damages if _id_of(item) is not None]
            new = [item for item in known if (item.table, item.id) not in tried]
            if not new:
                break
            tried |= {(item.table, item.id) for item in new}
            mends += await self._mend_rows(conn, head, root_key, new)
        # What is only counted: of it no copy can be named.
        return mends + [Mend(item, False, tree_remedy(item)) for item in left], root_key

    async def _root_key(self, conn: Connection, head: Tree) -> tuple[bytes | None, list[Mend]]:
        """Return the root's key, from the mirror where the row's wrap does not open."""
        root_key = await self._unwrap(head.generation, head.root_wrap)
        if root_key is not None:
            return root_key, []
        found = damage.root_wrap(self._region, head.generation)
        for header in (await self._copies(())).headers:
            if (header.generation, header.root) != (head.generation, head.root):
                continue
            root_key = await self._unwrap(header.generation, header.root_wrap)
            if root_key is not None:
                await nodes.set_root_wrap(conn, self._region, header.root_wrap)
                return root_key, [Mend(found, True, f"taken from segment {header.number}")]
        remedy = (
            "no segment in the bucket holds it: `portvault restore` of a backup whose generation "
        )
        return None, [Mend(found, False, f"{remedy}is {head.generation}, with its WAL")]

    async def _unwrap(self, generation: int, wrapped: bytes) -> bytes | None:
        context = wrap.root_context(self._region, generation)
        try:
            return await self._custodian.unwrap(self._region, generation, wrapped, context)
        except KeyDestroyedError:
            raise RolledBackError from None
        except IntegrityError:
            return None

    async def _mend_canaries(self, conn: Connection) -> list[Mend]:
        """Make canaries anew that do not open: any random bytes under the living key will do."""
        mends = []
        for generation in await damaged_canaries(conn, self._custodian, self._region):
            fresh = await self._custodian.wrap(
                self._region, generation, os.urandom(wrap.KEY_BYTES), CANARY_CONTEXT
            )
            await generations.set_canary(conn, self._region, generation, fresh)
            mends.append(Mend(damage.canary(self._region, generation), True, "made anew"))
        return mends

    async def _mend_rows(
        self, conn: Connection, head: Tree, root_key: bytes, damages: Sequence[Damage]
    ) -> list[Mend]:
        wanted = {_id_of(item) for item in damages} - {None}
        copies = await self._copies(wanted)
        keys = {item for item in wanted if isinstance(item, UUID)}
        copies.gone |= await data_keys.gone_among(conn, self._region, list(keys))
        copies.gone |= await self._shredded(conn, keys)
        mends, left = list[Mend](), dict[UUID, Damage]()
        for item in damages:
            identity = _id_of(item)
            if identity in copies.gone:
                mends.append(Mend(item, False, "it was shredded, and is not put back"))
                continue
            for copy in copies.rows.get(identity, []) if identity is not None else []:
                if await self._put_back(conn, head, root_key, copy):
                    mends.append(Mend(item, True, "taken from the mirror"))
                    break
            else:
                if self._backup is not None and isinstance(identity, UUID):
                    left[identity] = item
                else:
                    mends.append(Mend(item, False, tree_remedy(item)))
        if self._backup is not None and left:
            kept = await self._backup(self._region, left)
            for identity, item in left.items():
                mends.append(await self._from_backup(conn, head, root_key, item, kept, identity))
        return mends

    async def _from_backup(
        self,
        conn: Connection,
        head: Tree,
        root_key: bytes,
        item: Damage,
        kept: Mapping[UUID, WrappedKey | None],
        identity: UUID,
    ) -> Mend:
        """Put back a data key that the mirror has no copy of, where the backup's opens."""
        if identity not in kept:
            return Mend(item, False, f"{_NOT_IN_BACKUP}. {_LEFT_TO_DO}")
        copy = kept[identity]
        if copy is not None:
            if await self._put_back(conn, head, root_key, copy):
                return Mend(item, True, "taken from the backup, where it opens under its scope")
            path = await nodes.scope_path(conn, self._region, copy.scope)
            if path is None or path.scope.epoch != copy.scope_epoch:
                return Mend(item, False, f"{_TOO_OLD}. {_LEFT_TO_DO}")
        return Mend(item, False, f"{_NOT_ITS_OWN}. {_LEFT_TO_DO}")

    async def _put_back(
        self, conn: Connection, head: Tree, root_key: bytes, copy: Node | WrappedKey
    ) -> bool:
        """Put a copy into its place; False when it is not what belongs there."""
        try:
            return await self._put_in_place(conn, head, root_key, copy)
        except (IntegrityError, StaleScopeError):
            return False

    async def _put_in_place(
        self, conn: Connection, head: Tree, root_key: bytes, copy: Node | WrappedKey
    ) -> bool:
        """Put a copy into its place; False, or an error, when it is not what belongs there."""
        if isinstance(copy, WrappedKey):
            path = await nodes.scope_path(conn, self._region, copy.scope)
            if path is None or path.scope.epoch != copy.scope_epoch:
                return False
            scope_key = open_path(self._region, path.nodes, root_key, path.scope.slot)
            context = wrap.data_key_context(self._region, copy.scope, copy.scope_epoch, copy.id)
            wrap.unwrap(scope_key, copy.wrap, context)
            return await data_keys.put_back(conn, copy)
        above = await nodes.nodes_above(conn, self._region, [copy.id], head.root)
        path_down = [above.get(copy.id)]
        while path_down[0] is not None and path_down[0].id != head.root:
            path_down.insert(0, above.get(path_down[0].parent or 0))
        now = above.get(copy.id)
        whole = [node for node in path_down if node is not None]
        if now is None or len(whole) != len(path_down):
            return False
        if (now.epoch, now.level, now.used) != (copy.epoch, copy.level, copy.used):
            return False
        key = node_key(self._region, whole, root_key)
        page = wrap.decrypt_page(key, copy.page, wrap.page_context(self._region, now.id, now.epoch))
        check_used(page, now.used)
        await nodes.update_node(conn, self._region, replace(now, page=copy.page))
        return True

    async def _copies(self, wanted: Collection[int | UUID | None]) -> Copies:
        """Read the mirror from its newest segment back; rows count once their segment verified."""
        copies, digests = Copies(), dict[str, bytes]()
        for name in reversed(await self._mirror.names()):
            header: Header | None = None
            rows, gone = list[Node | WrappedKey](), set[UUID]()
            try:
                async for row in self._mirror.read(name, digest=digests.get(name)):
                    if isinstance(row, Header):
                        header = row
                    elif isinstance(row, Gone):
                        gone.add(row.id)
                    elif isinstance(row, Node | WrappedKey) and row.id in wanted:
                        rows.append(row)
            except KeysError:
                # Its own finding; what is before it may still verify.
                continue
            if header is None:
                continue
            copies.headers.append(header)
            copies.gone |= gone
            for kept in rows:
                copies.rows.setdefault(kept.id, []).append(kept)
            if header.previous is not None and header.previous_digest is not None:
                digests[header.previous] = header.previous_digest
        return copies


async def damaged_canaries(conn: Connection, custodian: Custodian, region: str) -> list[int]:
    """Return the generations whose canary does not open although their root key lives."""
    found = []
    for generation, canary in await generations.canaries(conn, region):
        try:
            await custodian.unwrap(region, generation, canary, CANARY_CONTEXT)
        except IntegrityError:
            found.append(generation)
        except (KeyDestroyedError, KeyMissingError):
            continue
    return found


def _id_of(item: Damage) -> int | UUID | None:
    try:
        if item.table == "key_node":
            return int(item.id or "")
        return UUID(item.id or "") if item.table == "data_key" else None
    except ValueError:
        return None


def tree_remedy(item: Damage) -> str:
    """Return what is to be done about what no copy mends, of whatever table of the tree."""
    if item.table == "data_key":
        return (
            "the mirror has no copy that opens. `portvault repair --backup FILE` takes it from a "
            f"backup that has it as it was last wrapped. {_LEFT_TO_DO}"
        )
    return "the mirror has no copy that fits: `portvault restore` of the last backup, with its WAL"


def _mirror_mend(item: Damage, *, sound: bool) -> Mend:
    if sound:
        return Mend(item, True, "a new base is written from the database")
    return Mend(item, False, "the tree in the database is to be mended first; then repair again")
