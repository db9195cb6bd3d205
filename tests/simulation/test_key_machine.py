"""
The five invariants of the key tree, against every past state of the database and every wrap made.

A machine uploads, shreds, seals and mirrors, with a fault at any call; it keeps each state that the
database ever had, goes back to one of them as a restore or a fail-over does, and goes on. After
each step what is called irrecoverable must be unreachable from what the custodian still holds, and
from a past state the mirror must bring back every document that lives.
"""

import asyncio
import contextlib
import io
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keys import seal as seal_module
from keys.data_keys import wrapped_key
from keys.errors import KeysError, RolledBackError
from keys.ground.postgres import Connection
from keys.stream import DataKey
from keys.tree import WrappedKey
from tests.fixtures_postgres import Address, fresh_database, memory
from tests.key_house import REGION, BrokenError, House, Ledger, build, keys_of

TABLES = (
    "key_generation",
    "key_tree",
    "key_node",
    "key_scope",
    "key_dirty",
    "key_changed",
    "data_key",
    "key_gone",
    "key_mirror",
)
FAULTS = st.none() | st.tuples(st.integers(1, 60), st.booleans())
State = dict[str, bytes]


async def take_state(conn: Connection) -> State:
    """Return the tables of the key tree as they are."""
    state = {}
    for table in TABLES:
        buffer = io.BytesIO()
        await conn.copy_from_table(table, output=buffer, format="binary")
        state[table] = buffer.getvalue()
    return state


async def put_state(conn: Connection, state: State) -> None:
    """Make the tables what they were."""
    for table in reversed(TABLES):
        await conn.execute(f"delete from {table}")
    for table in TABLES:
        await conn.copy_to_table(table, source=io.BytesIO(state[table]), format="binary")


class KeyMachine(RuleBasedStateMachine):
    """What may happen to a region's keys, in any order."""

    def __init__(self, server: Address, template: str, place: Path) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._databases = fresh_database(server, template)
        self._ledger, self._place = Ledger(), place
        self._listening = self._ledger.listening()
        self._listening.__enter__()
        self._run(self._open)
        self.past: list[State] = []
        self.claimed: set[UUID] = set()
        self.lost: dict[UUID, bytes] = {}
        self.uploads: dict[UUID, tuple[DataKey, WrappedKey]] = {}
        self._run(self._remember)

    def _run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        return self._runner.run(step(*arguments))

    async def _open(self) -> None:
        dsn = await anext(self._databases)
        self._building = build(dsn, self._place, self._ledger)
        self.house: House = await self._building.__aenter__()
        await self.house.keyring.start_region(REGION)

    def teardown(self) -> None:
        """Look once more at every past state."""
        try:
            for index in range(len(self.past)):
                self._run(self._survives, index)
        finally:
            self._listening.__exit__(None, None, None)
            self._run(self._close)
            self._runner.close()

    async def _close(self) -> None:
        await self._building.__aexit__(None, None, None)
        await anext(self._databases, None)

    @rule(count=st.integers(1, 4))
    def put(self, count: int) -> None:
        """Documents of new orders arrive."""
        self._run(self.house.put, count)
        self._run(self._settle)

    @precondition(lambda self: self.house.living)
    @rule(data=st.data())
    def put_beside(self, data: st.DataObject) -> None:
        """Another document of an order arrives."""
        beside = data.draw(st.sampled_from(self.house.living))
        self._run(lambda: self.house.put(beside=beside))
        self._run(self._settle)

    @precondition(lambda self: self.house.living)
    @rule(data=st.data())
    def begin_upload(self, data: st.DataObject) -> None:
        """A document begins to arrive; its key is wrapped, and known to nobody."""
        beside = data.draw(st.sampled_from(self.house.living))
        self._run(self._begin, self.house.scopes[beside])

    async def _begin(self, scope: UUID) -> None:
        identity = UUID(int=len(self.uploads) + (len(self.past) << 64))
        self.uploads[identity] = await self.house.keyring.new_key(REGION, scope, identity)

    @precondition(lambda self: self._beside_an_upload())
    @rule(data=st.data())
    def seal_during_an_upload(self, data: st.DataObject) -> None:
        """The scope of a document that arrives is re-keyed, and lives on for what else it has."""
        beside = data.draw(st.sampled_from(self._beside_an_upload()))
        self._run(self._rekey, beside)
        self.end_uploads()

    def _beside_an_upload(self) -> list[UUID]:
        """Return the living keys in whose scopes a document arrives."""
        arriving = {wrapped.scope for _, wrapped in self.uploads.values()}
        return [key for key in self.house.living if self.house.scopes[key] in arriving]

    async def _rekey(self, beside: UUID) -> None:
        (other,) = await self.house.put(beside=beside)
        await self.house.shred(other)
        await self.house.keyring.seal(REGION)

    @precondition(lambda self: self.uploads)
    @rule()
    def end_uploads(self) -> None:
        """
        All have arrived, and share a commit.

        Those whose scope was re-keyed meanwhile are wrapped anew, or given up; the others are kept.
        """
        self._run(self._end)
        self._run(self._settle)

    async def _end(self) -> None:
        house, self.uploads, sent = self.house, {}, self.uploads
        for _ in range(2):
            async with house.pool.acquire() as conn, conn.transaction():
                stale = await house.keep(conn, [wrapped for _, wrapped in sent.values()])
            for identity in sent.keys() - stale:
                key, wrapped = sent.pop(identity)
                house.data_keys[identity], house.scopes[identity] = key.reveal(), wrapped.scope
            for identity, (key, wrapped) in list(sent.items()):
                try:
                    sent[identity] = key, await house.keyring.rewrap(key, wrapped)
                except KeysError:
                    del sent[identity]

    @precondition(lambda self: self.house.living)
    @rule(data=st.data())
    def shred(self, data: st.DataObject) -> None:
        """A document's time has come."""
        self._run(self.house.shred, data.draw(st.sampled_from(self.house.living)))
        self._run(self._settle)

    @rule(fault=FAULTS, force=st.booleans())
    def seal(self, fault: tuple[int, bool] | None, force: bool) -> None:
        """A seal runs, and may fail anywhere."""
        self._run(self._with_fault, fault, lambda: self.house.keyring.seal(REGION, force=force))
        self._run(self._settle)

    @rule(fault=FAULTS)
    def mirror(self, fault: tuple[int, bool] | None) -> None:
        """The mirror is brought up to date, and may fail anywhere."""
        self._run(self._with_fault, fault, lambda: self.house.keyring.mirror(REGION))
        self._run(self._settle)

    @precondition(lambda self: self.house.living)
    @rule(data=st.data(), fault=FAULTS, mirrored=st.booleans(), beside=st.booleans())
    def lose_a_row(
        self, data: st.DataObject, fault: tuple[int, bool] | None, mirrored: bool, beside: bool
    ) -> None:
        """The row of a living key is lost, at whatever moment; a seal comes before any repair."""
        key = data.draw(st.sampled_from(self.house.living))
        self._run(self._lose, key, fault, mirrored, beside)
        self._run(self._settle)

    async def _lose(
        self, key: UUID, fault: tuple[int, bool] | None, mirrored: bool, beside: bool
    ) -> None:
        house = self.house
        if mirrored:
            await house.keyring.mirror(REGION)
        if beside:
            (other,) = await house.put(beside=key)
            await house.shred(other)
        gone = "delete from data_key where id = any($1) returning *"
        (row,) = await house.pool.fetch(gone, [key])
        lost = wrapped_key(row)
        house.faults.arm(fault[0] if fault else None, after=bool(fault and fault[1]))
        with contextlib.suppress(BrokenError, KeysError):
            await house.keyring.seal(REGION, force=True)
        house.faults.arm(None)
        mends = await house.keyring.repair(REGION, self._none_shredded, dry_run=False)
        put_back = [mend for mend in mends if mend.mended and mend.damage.id == str(key)]
        if mirrored:
            assert put_back, f"{key} was in the mirror, and is lost"
        if not put_back:
            # No segment has it, but a backup may: the wrap of before is still what opens.
            async with house.pool.acquire() as conn:
                assert not await house.keyring.keep_keys(conn, [lost])

    async def _none_shredded(self, conn: Connection, keys: Collection[UUID]) -> set[UUID]:
        del conn
        return set(keys) & set(self.house.shredded)

    async def _with_fault(self, fault: tuple[int, bool] | None, step: Callable[[], Any]) -> None:
        if fault is not None:
            self.house.faults.arm(fault[0], after=fault[1])
        try:
            await step()
        except (BrokenError, KeysError):
            assert fault is not None
        finally:
            self.house.faults.arm(None)

    @rule(data=st.data(), fault=FAULTS)
    def go_back(self, data: st.DataObject, fault: tuple[int, bool] | None) -> None:
        """The database is lost; a backup, or a standby that lagged, is restored in its place."""
        index = data.draw(st.integers(0, len(self.past) - 1))
        self._run(self._go_back, index)
        self._run(self._with_fault, fault, lambda: self.house.keyring.seal(REGION, force=True))
        self._run(self._settle)

    async def _go_back(self, index: int) -> None:
        house = self.house
        house.keyring.forget()
        async with house.pool.acquire() as conn:
            async with conn.transaction():
                await put_state(conn, self.past[index])
            with contextlib.suppress(RolledBackError):
                await house.keyring.start_region(REGION)
            async with conn.transaction():
                await self._restore(conn)
            rows = await conn.fetch("select id from data_key")
        kept = {row["id"] for row in rows}
        for key in set(house.living) - kept:
            # Stored after that state and after the last mirror: with WAL it would not be lost.
            self.lost[key] = house.data_keys.pop(key)
        for key in kept & set(self.lost):
            # A later backup than the one that was restored before still had it.
            house.data_keys[key] = self.lost.pop(key)

    async def _restore(self, conn: Connection) -> None:
        """Restore, and repeat the shreds that the log knows."""
        house = self.house
        await house.keyring.restore(conn, REGION)
        again = [key for key in house.shredded if key in house.data_keys]
        await house.keyring.destroy_keys(conn, REGION, again)

    async def _remember(self) -> None:
        async with self.house.pool.acquire() as conn:
            self.past.append(await take_state(conn))

    async def _settle(self) -> None:
        """Check the invariants, and from some past state that what lives survives."""
        self.claimed |= await self.house.sealed()
        await self.house.check(claimed=self.claimed)
        await self._remember()
        await self._survives(len(self.past) * 7919 % len(self.past))
        await self._survives(len(self.past) // 2)

    async def _survives(self, index: int) -> None:
        """Look at a restore of a past state without keeping it: who lives is there, who is not."""
        house = self.house
        async with house.pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                await put_state(conn, self.past[index])
                had = {row["id"] for row in await conn.fetch("select id from data_key")}
                await self._restore(conn)
                opened = await keys_of(conn, house.custodian)
            finally:
                await transaction.rollback()
        for key in had & set(house.living):
            assert opened.get(key) == house.data_keys[key], f"{key} did not survive"
        assert not self.claimed & set(opened)


def test_the_invariants_hold_whatever_happens(
    postgres_server: Address,
    database_template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Erasure, One path, Survival, No orphan and Gate hold in any order of events and faults."""
    monkeypatch.setattr(seal_module, "SCOPES_IN_ONE_STEP", 2)

    # Keys and segments are made durable at each step, which is another test's affair.
    with tempfile.TemporaryDirectory(prefix="portvault-", dir=memory() or tmp_path) as places:

        def machine() -> KeyMachine:
            place = Path(tempfile.mkdtemp(dir=places))
            return KeyMachine(postgres_server, database_template, place)

        run_state_machine_as_test(
            machine,  # type: ignore[arg-type] # a factory is taken, too
            settings=settings(
                max_examples=12,
                stateful_step_count=25,
                deadline=None,
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
