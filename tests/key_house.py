"""
A keyring over real parts whose every call can fail, and the oracle that judges it.

`Faults` counts the calls to the database, the bucket and the custodian, and breaks one of them
before or after it took effect. `Ledger` hears of every wrap that is ever made, whether it was kept
or not; what an adversary can learn is what is reachable in it from the root keys that still exist.
"""

import os
import re
import signal
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from keys import mirror_rows, wrap
from keys.custodians.file import FileCustodian
from keys.data_keys import COLUMNS, SKIP_LOCKED, current_keys, kept_keys, wrapped_key
from keys.errors import KeyDestroyedError, KeysError, StaleScopeError
from keys.ground.postgres import Connection
from keys.keyring import DataKey, Keyring
from keys.mirror import Mirror
from keys.segment import Opener
from keys.tree import Node, Scope, WrappedKey
from vault.adapters.directory import DirectoryStore
from vault.context import StoredObject
from vault.errors import ObjectStoreUnavailableError

REGION = "uk"
#: How often something is tried while seals come between.
ATTEMPTS = 20


class BrokenError(OSError):
    """The part that was to fail has failed."""


class BrokenBucketError(BrokenError, ObjectStoreUnavailableError):
    """The call that was to break is a bucket's, whose failures are of the vault's kind."""


@dataclass
class Faults:
    """Counts calls; breaks the one whose turn it is."""

    calls: int = 0
    breaks_at: int | None = None
    after: bool = False
    #: Whether the process is killed instead of the call failing.
    kills: bool = False
    names: list[str] = field(default_factory=list)
    #: Calls that were broken before, when the first of any other kind is to break.
    known: AbstractSet[str] | None = None
    #: What broke since it was armed.
    broken: str | None = None

    def arm(self, call: int | None, *, after: bool = False) -> None:
        """Break the call of this number, counted from now."""
        self.calls, self.breaks_at, self.after, self.names = 0, call, after, []
        self.known = self.broken = None

    def arm_new(self, known: AbstractSet[str], *, after: bool = False) -> None:
        """Break the first call that is of none of the `known` kinds."""
        self.arm(None, after=after)
        self.known = known

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Go around a call."""
        self.calls += 1
        self.names.append(name)
        mine = self.calls == self.breaks_at
        if self.known is not None and self.broken is None and name not in self.known:
            mine = True
        if mine and not self.after:
            self._break(name)
        yield
        if mine:
            self._break(name)

    def _break(self, name: str) -> None:
        self.broken = name
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        raise (BrokenBucketError if name.startswith("bucket.") else BrokenError)(name)


class FaultyCustodian(FileCustodian):
    """The file custodian, that may fail before or after."""

    def __init__(self, place: str, faults: Faults) -> None:
        super().__init__(place)
        self._faults = faults

    async def create(self, region: str, generation: int) -> None:
        """Create, or fail."""
        with self._faults.call("custodian.create"):
            await super().create(region, generation)

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Wrap, or fail."""
        with self._faults.call("custodian.wrap"):
            return await super().wrap(region, generation, key, context)

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap, or fail."""
        with self._faults.call("custodian.unwrap"):
            return await super().unwrap(region, generation, wrapped, context)

    async def destroy(self, region: str, generation: int) -> None:
        """Destroy, or fail."""
        with self._faults.call("custodian.destroy"):
            await super().destroy(region, generation)

    async def generations(self, region: str) -> list[int]:
        """List, or fail."""
        with self._faults.call("custodian.generations"):
            return await super().generations(region)


class FaultyBucket(DirectoryStore):
    """The directory store, that may fail before or after."""

    def __init__(self, root: Path, faults: Faults) -> None:
        super().__init__(root)
        self._faults = faults

    async def put(self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None) -> None:
        """Put, or fail."""
        with self._faults.call("bucket.put"):
            await super().put(name, chunks, size_bytes=size_bytes)

    @asynccontextmanager
    async def get(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Get, or fail."""
        with self._faults.call("bucket.get"):
            pass
        async with super().get(name, offset=offset, length=length) as chunks:
            yield chunks

    async def purge(self, name: str) -> int:
        """Purge, or fail."""
        with self._faults.call("bucket.purge"):
            return await super().purge(name)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """List, or fail."""
        with self._faults.call("bucket.list"):
            pass
        async for item in super().list(prefix, after=after):
            yield item


def _kind_of(query: str) -> str:
    """Return how a statement begins; savepoints, which have numbers, are all of one kind."""
    return re.sub(r"__asyncpg_savepoint_\w+__", "savepoint", " ".join(query.split()))[:60]


def faulty_connection(faults: Faults) -> type[asyncpg.Connection]:
    """Return a class of connections each of whose statements may fail before or after."""

    class FaultyConnection(asyncpg.Connection):
        async def execute(self, query: str, *args: Any, **options: Any) -> str:
            with faults.call(f"database: {_kind_of(query)}"):
                done: str = await super().execute(query, *args, **options)
                return done

        async def _execute(self, query: str, *args: Any, **options: Any) -> Any:
            with faults.call(f"database: {_kind_of(query)}"):
                return await super()._execute(query, *args, **options)  # type: ignore[misc] # no stub

        async def copy_records_to_table(self, table_name: str, **options: Any) -> str:
            with faults.call(f"database: copy into {table_name}"):
                done: str = await super().copy_records_to_table(table_name, **options)
                return done

    return FaultyConnection


@dataclass
class Ledger:
    """Every wrap that was ever made: from a key to the keys it opens."""

    edges: dict[bytes, set[bytes]] = field(default_factory=dict)
    #: Where wraps are written down before they are made, for who outlives this process.
    file: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of every wrap while the block runs."""
        original = wrap.encrypt

        def encrypt(
            key: bytes, plaintext: bytes, context: bytes, nonce: bytes | None = None
        ) -> bytes:
            size = wrap.KEY_BYTES
            children = {plaintext[at : at + size] for at in range(0, len(plaintext), size)}
            self._add(bytes(key), children)
            return original(key, plaintext, context, nonce)

        wrap.encrypt = encrypt
        try:
            yield
        finally:
            wrap.encrypt = original

    def _add(self, key: bytes, children: set[bytes]) -> None:
        fresh = children - {wrap.EMPTY} - self.edges.setdefault(key, set())
        self.edges[key] |= fresh
        if self.file is not None:
            os.write(self.file, b"".join(key + child for child in fresh))

    def load(self, path: Path) -> None:
        """Take over what another process wrote down."""
        text, size = path.read_bytes(), wrap.KEY_BYTES
        for at in range(0, len(text), 2 * size):
            edge = text[at : at + 2 * size]
            self.edges.setdefault(edge[:size], set()).add(edge[size:])

    def reachable(self, roots: set[bytes]) -> set[bytes]:
        """Return all that an adversary learns from these keys and every wrap."""
        known, waiting = set(roots), list(roots)
        while waiting:
            fresh = self.edges.get(waiting.pop(), set()) - known
            known |= fresh
            waiting += fresh
        return known


#: The statement of a group of uploads, without the documents: the check and the insertion are the
#: same SQL.
_KEEP_MANY = f"""
    with sent as (
        select * from unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::bytea[])
            sent ({COLUMNS})),
    {current_keys("sent", "$3", SKIP_LOCKED)},
    {kept_keys("sent")}
    select id from sent where id not in (select id from current_keys)
    """


class KnownKeys:
    """Tells the keyring what lives, from what the house knows and not from any row."""

    house: "House"

    async def unkeyed(
        self, conn: Connection, region: str, scopes: Sequence[UUID] | None
    ) -> list[UUID]:
        """Return living keys that have no row: of these scopes, or of all."""
        del region
        rows = await conn.fetch("select id from data_key")
        kept, house = {row["id"] for row in rows}, self.house
        lost = [key for key in house.living if key not in kept | house.leaving]
        return [key for key in lost if scopes is None or house.scopes[key] in scopes]

    async def scopes_of(self, conn: Connection, region: str, things: Sequence[UUID]) -> list[UUID]:
        """Return the scopes of keys."""
        del conn, region
        return [self.house.scopes[key] for key in things if key in self.house.scopes]


@dataclass
class House:
    """A keyring over a database, a bucket and a custodian, and what is known of its keys."""

    dsn: str
    place: Path
    pool: asyncpg.Pool
    faults: Faults
    custodian: FaultyCustodian
    bucket: FaultyBucket
    keyring: Keyring
    ledger: Ledger
    #: What every data key was, by its id, and the scope it hangs on.
    data_keys: dict[UUID, bytes] = field(default_factory=dict)
    scopes: dict[UUID, UUID] = field(default_factory=dict)
    #: The generation at which a key was shredded.
    shredded: dict[UUID, int] = field(default_factory=dict)
    #: Keys that are being shredded.
    leaving: set[UUID] = field(default_factory=set)

    @property
    def living(self) -> list[UUID]:
        """The keys that were kept and not shredded."""
        return [key for key in self.data_keys if key not in self.shredded]

    async def put(self, count: int = 1, *, beside: UUID | None = None) -> list[UUID]:
        """Keep data keys: each in a new scope, or all in the scope of another key."""
        made = []
        for _ in range(count):
            identity = uuid4()
            async with self.pool.acquire() as conn:
                if beside is None and len(self.scopes) % 2:
                    scope = uuid4()
                    key = await self._put_in_new_scope(conn, scope, identity)
                elif beside is None:
                    scope = uuid4()
                    async with conn.transaction():
                        key, _ = await self.keyring.create_scope(conn, REGION, scope, identity)
                else:
                    scope = self.scopes[beside]
                    key, wrapped = await self.keyring.new_key(REGION, scope, identity)
                    async with conn.transaction():
                        if await self.keep(conn, [wrapped]):
                            raise StaleScopeError
            self.data_keys[identity], self.scopes[identity] = key.reveal(), scope
            made.append(identity)
        return made

    async def _put_in_new_scope(self, conn: Connection, scope: UUID, identity: UUID) -> DataKey:
        """Keep a key as orders do: its scope first, then the key; again where a seal was faster."""
        for attempt in range(ATTEMPTS):
            with suppress(StaleScopeError, KeyDestroyedError):
                with suppress(asyncpg.UniqueViolationError):
                    async with conn.transaction():
                        await self.keyring.create_empty_scope(conn, REGION, scope)
                key, wrapped = await self.keyring.new_key(REGION, scope, identity)
                async with conn.transaction():
                    if attempt == 0:
                        await self.keyring.settle(conn, REGION, scope)
                    if await self.keyring.keep_keys(conn, [wrapped]):
                        raise StaleScopeError
                return key
        raise KeysError("a new scope was always too late")

    async def keep(self, conn: Connection, keys: Sequence[WrappedKey]) -> set[UUID]:
        """
        Keep data keys as a group of uploads does, and return the ids of those that are stale.

        All at once, without those whose scope is locked; then these, one by one, with waiting.
        """
        rows = await conn.fetch(
            _KEEP_MANY,
            [key.id for key in keys],
            [key.region for key in keys],
            [key.scope for key in keys],
            [key.scope_epoch for key in keys],
            [key.wrap for key in keys],
        )
        left = {row["id"] for row in rows}
        return {
            identity
            for key in keys
            if key.id in left
            for identity in await self.keyring.keep_keys(conn, [key])
        }

    async def shred(self, *keys: UUID) -> None:
        """Take data keys out of the tree."""
        self.leaving.update(keys)
        async with self.pool.acquire() as conn, conn.transaction():
            generation = await self.keyring.destroy_keys(conn, REGION, keys)
        self.shredded.update(dict.fromkeys(keys, generation))

    async def segments(self) -> list[str]:
        """Return the names of the mirror's segments."""
        return await Mirror(self.bucket, self.custodian, REGION).names()

    async def sealed(self) -> set[UUID]:
        """Return the keys that the keyring calls irrecoverable now."""
        async with self.pool.acquire() as conn:
            found = await self.keyring.destroyed_generation(conn, REGION)
        destroyed = found[0] if found else 0
        return {key for key, generation in self.shredded.items() if generation <= destroyed}

    def root_keys(self) -> set[bytes]:
        """Return what the custodian still holds, as a thief of it would."""
        return {path.read_bytes() for path in (self.place / "keys").glob("*.key")}

    async def check(self, *, claimed: AbstractSet[UUID] = frozenset()) -> None:
        """
        Check what must always hold: Erasure, One path, No orphan.

        `claimed` are keys that were called irrecoverable earlier, on whatever timeline.
        """
        known = self.ledger.reachable(self.root_keys())
        for key in await self.sealed() | claimed:
            assert self.data_keys[key] not in known, f"{key} is sealed and can be learned"
        children = set().union(*self.ledger.edges.values()) if self.ledger.edges else set()
        assert not children & self.root_keys(), "a generation opens another"
        self.keyring.forget()
        walk = await self.keyring.verify(REGION)
        assert not walk.findings, walk.findings
        assert walk.keys == len(self.living)
        await self.open_all()

    async def open_all(self) -> None:
        """Open every living key, and none that was shredded."""
        async with self.pool.acquire() as conn:
            rows = await conn.fetch(f"select {COLUMNS} from data_key")
        kept = {row["id"]: wrapped_key(row) for row in rows}
        assert set(kept) == set(self.living)
        for identity, wrapped in kept.items():
            opened = await self.keyring.open_key(wrapped)
            assert opened.reveal() == self.data_keys[identity]


async def keys_of(conn: Connection, custodian: FileCustodian) -> dict[UUID, bytes]:
    """Open every data key that the tree leads to, as the connection sees it."""
    (head,) = await conn.fetch("select * from key_tree")
    context = wrap.root_context(REGION, head["generation"])
    root_key = await custodian.unwrap(REGION, head["generation"], head["root_wrap"], context)
    opener, scope_key, opened = Opener(REGION, head["root"], root_key), b"", {}
    pages = dict[int, bytes]()
    async for row in mirror_rows.whole(conn, REGION):
        opener.open(row)
        if isinstance(row, Node):
            key = root_key
            if row.parent is not None and row.slot is not None:
                key = pages[row.parent][row.slot * 32 :][:32]
            context = wrap.page_context(REGION, row.id, row.epoch)
            pages[row.id] = bytes(wrap.decrypt_page(key, row.page, context))
        elif isinstance(row, Scope):
            scope_key = pages[row.node][row.slot * 32 :][:32]
        elif isinstance(row, WrappedKey):
            context = wrap.data_key_context(REGION, row.scope, row.scope_epoch, row.id)
            opened[row.id] = wrap.unwrap(scope_key, row.wrap, context)
    return opened


@asynccontextmanager
async def build(
    dsn: str, place: Path, ledger: Ledger | None = None, before: House | None = None
) -> AsyncIterator[House]:
    """Give a house on a migrated database, with what was known of its keys `before`."""
    faults, ledger = Faults(), ledger or Ledger()
    custodian = FaultyCustodian(str(place / "keys"), faults)
    await custodian.check()
    bucket = FaultyBucket(place / "objects", faults)
    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=4, connection_class=faulty_connection(faults)
    ) as pool:
        living = KnownKeys()
        keyring = Keyring(pool, {REGION: custodian}, {REGION: bucket}, living, cache_seconds=1.0)
        house = House(dsn, place, pool, faults, custodian, bucket, keyring, ledger)
        living.house = house
        if before is not None:
            house.data_keys, house.scopes = before.data_keys, before.scopes
            house.shredded = before.shredded
        yield house
    await bucket.close()
