"""
One commit for many: what waits while a commit is under way goes into the next one together.

A group never waits for a row of an item that somebody has locked. What is left out for that, and
what the database refuses, is tried again alone, on a connection of the pool and in its caller's own
task: so nothing that is wrong or slow with one item delays or fails another. What all of them need
is waited for together: faxes that end wait for the switch of a seal that has their tree. When the
answer to a commit is lost, every item of the group fails, and may have been committed nevertheless.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Self, TypeVar
from uuid import UUID

import asyncpg

from keys.ground.postgres import AWAY, Connection, Pool
from keys.keyring import Keyring
from vault.config.settings import Config
from vault.domain.faxes import Fax
from vault.domain.records import Record
from vault.errors import DatabaseUnavailableError, RecordsUnavailableError
from vault.sql.documents import Found, find_many, find_with_key
from vault.sql.fax_intake import NewFax, Taken, take_many, take_one
from vault.sql.faxes import (
    Ending,
    Looked,
    Opened,
    Opening,
    end_many,
    end_one,
    look_at_many,
    look_at_one,
    open_many,
    open_one,
)
from vault.sql.intake import (
    Announced,
    Announcement,
    Keeping,
    Kept,
    announce_many,
    announce_one,
    keep_many,
    keep_one,
)
from vault.sql.log import append_records, insert_records
from vault.sql.session import SERVICE_ROLE, SERVICE_SESSION, SessionRefusedError, require_session

log = logging.getLogger(__name__)

#: A group takes so many items at most, in the order in which they came; others wait.
GROUP_MAX = 100
WAITERS_MAX = 10_000
#: So many turns of the loop at most a group waits for more to come, where the last one had company.
#: A turn takes as long as what is to be done in it: next to nothing where there is nothing.
COMPANY_TURNS = 25
ACQUIRE_SECONDS = 5.0
#: What is said of an item that cannot be written, by the database or by who encodes it.
_REFUSED = (asyncpg.PostgresError, ValueError, TypeError, OverflowError)

Item = TypeVar("Item")
Result = TypeVar("Result")
#: Commits the items; None for one that was left out, because a lock would have to be waited for.
Commit = Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | None]]]
#: Commits one item, however long its locks take.
CommitAlone = Callable[[Connection, Item], Awaitable[Result]]


@dataclass(slots=True, eq=False)
class _Waiter(Generic[Item, Result]):
    item: Item
    #: None: try it alone.
    done: asyncio.Future[Result | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class GroupCommitter(Generic[Item, Result]):
    """Commits in groups, on one connection of its own; an async context manager."""

    def __init__(
        self,
        name: str,
        dsn: str,
        pool: Pool,
        *,
        together: Commit[Item, Result],
        alone: CommitAlone[Item, Result],
        role: str,
        timeout_seconds: float,
    ) -> None:
        self._name, self._dsn, self._pool, self._role = name, dsn, pool, role
        self._together, self._alone = together, alone
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[_Waiter[Item, Result]] = deque()
        self._came = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self._name)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Give what still waits the usual time to be committed, then refuse it."""
        task, self._task = self._task, None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_seconds):
                    await self._idle.wait()
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            while self._waiting:
                _refuse(self._waiting.popleft())
            self._disconnect()

    async def submit(self, item: Item) -> Result:
        """
        Return the result once it is durable.

        Raises `DatabaseUnavailableError` in bounded time when it is not known to be, and what the
        database says where the item itself is refused. A caller that is cancelled before its group
        was sent is left out of it.
        """
        if self._task is None or len(self._waiting) >= WAITERS_MAX:
            raise DatabaseUnavailableError
        waiter: _Waiter[Item, Result] = _Waiter(item)
        self._waiting.append(waiter)
        self._idle.clear()
        self._came.set()
        timer = asyncio.get_running_loop().call_later(self._timeout_seconds, _refuse, waiter)
        try:
            result = await waiter.done
        finally:
            timer.cancel()
        return await self._try_alone(item) if result is None else result

    async def _try_alone(self, item: Item) -> Result:
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as conn:
                return await self._alone(conn, item)
        except AWAY as error:
            raise DatabaseUnavailableError from error

    async def _run(self) -> None:
        group: list[_Waiter[Item, Result]] = []
        while True:
            await self._came.wait()
            await wait_for_company(self._waiting.__len__, last=len(group), full=GROUP_MAX)
            group = []
            while self._waiting and len(group) < GROUP_MAX:
                waiter = self._waiting.popleft()
                # Who gave up, or was cancelled, while waiting is not part of it.
                if not waiter.done.done():
                    group.append(waiter)
            try:
                if group:
                    await self._commit(group)
            except AWAY as error:
                self._disconnect()
                log.warning("%s: nothing can be committed: %s", self._name, type(error).__name__)
            except SessionRefusedError as error:
                self._disconnect()
                log.error("%s: nothing can be committed: %s", self._name, error)
            except Exception:
                # Whatever it was, the next group gets a new connection and a new chance.
                self._disconnect()
                log.exception("%s: nothing can be committed", self._name)
            finally:
                for waiter in group:
                    _refuse(waiter)
            if not self._waiting:
                self._came.clear()
                self._idle.set()

    async def _commit(self, group: list[_Waiter[Item, Result]]) -> None:
        results: Sequence[Result | None]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                conn = await self._connect()
                # One transaction: a crash before its commit leaves nothing of any item.
                results = await self._together(conn, [waiter.item for waiter in group])
        except AWAY:
            raise
        except _REFUSED as error:
            log.warning("%s: a group was refused: %s", self._name, type(error).__name__)
            results = [None] * len(group)
        for waiter, result in zip(group, results, strict=True):
            if not waiter.done.done():
                waiter.done.set_result(result)

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._conn is None or self._conn.is_closed():
            milliseconds = str(max(1, int(self._timeout_seconds * 1000)))
            asked = {
                **SERVICE_SESSION,
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                "application_name": f"portvault-{self._name}",
                "role": self._role,
                # Rows are found by their keys, whatever the table looked like when the
                # statement was planned: it may have been empty then.
                "enable_seqscan": "off",
                "jit": "off",
            }
            self._conn = await asyncpg.connect(
                self._dsn, timeout=self._timeout_seconds, server_settings=asked
            )
            await require_session(self._conn, asked)
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


async def wait_for_company(waiting: Callable[[], int], *, last: int, full: int) -> None:
    """
    Let more come into a group whose last one had `last` members, until it has `full`.

    Once there are as many as the last one had, it goes after a turn in which nobody came.
    """
    for _ in range(COMPANY_TURNS if last > 1 else 0):
        there = waiting()
        if there >= full:
            return
        await asyncio.sleep(0)
        if waiting() == there >= last:
            return


def _refuse(waiter: _Waiter[Item, Result]) -> None:
    if not waiter.done.done():
        waiter.done.set_exception(DatabaseUnavailableError())


# ---- Makes access records durable: all callers that wait share the next commit. -----------------
#
# One connection of its own, so that a pool that is busy with documents never delays a record. A
# failure, or more time than allowed, is `RecordsUnavailableError` to each caller whose record may
# not be durable; a record that went in nevertheless is harmless, and inserting it again is, too.

RECORD_WAITERS_MAX = 10_000
#: How the recorder's session is called in the database, by which a running vault is known.
APPLICATION = "portvault-recorder"
#: A batch takes no further caller once it has so many records; one caller may bring more.
BATCH_RECORDS_MAX = 500


Append = Callable[[Connection, Sequence[Record]], Awaitable[None]]


@dataclass(slots=True)
class _RecorderWaiter:
    records: Sequence[Record]
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class GroupRecorder:
    """Appends in groups; an async context manager."""

    def __init__(self, dsn: str, *, timeout_seconds: float) -> None:
        self._dsn, self._timeout_seconds = dsn, timeout_seconds
        self._waiting: asyncio.Queue[_RecorderWaiter] = asyncio.Queue(RECORD_WAITERS_MAX)
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="recorder")
        return self

    async def __aexit__(self, *error: object) -> None:
        """Give what still waits the usual time to become durable, then refuse it."""
        task, self._task = self._task, None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_seconds):
                    await self._waiting.join()
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            while not self._waiting.empty():
                _recorder_refuse(self._waiting.get_nowait())
            self._disconnect()

    async def append(self, record: Record) -> None:
        """Return once the record is durable."""
        await self.append_many([record])

    def append_many(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """
        Begin at once, and return what is done when all are durable.

        It fails with `RecordsUnavailableError` in bounded time; cancelled before its batch is sent,
        it leaves the records out.
        """
        if self._task is None:
            raise RecordsUnavailableError
        waiter = _RecorderWaiter(records)
        if not records:
            waiter.done.set_result(None)
            return waiter.done
        try:
            self._waiting.put_nowait(waiter)
        except asyncio.QueueFull:
            raise RecordsUnavailableError from None
        timer = asyncio.get_running_loop().call_later(
            self._timeout_seconds, _recorder_refuse, waiter
        )
        waiter.done.add_done_callback(lambda _: timer.cancel())
        return waiter.done

    async def _run(self) -> None:
        batch: list[_RecorderWaiter] = []
        while True:
            last, batch = len(batch), [await self._waiting.get()]
            try:
                await wait_for_company(
                    lambda: 1 + self._waiting.qsize(), last=last, full=BATCH_RECORDS_MAX
                )
                size = len(batch[0].records)
                while size < BATCH_RECORDS_MAX and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                    size += len(batch[-1].records)
                await self._record(batch)
            except AWAY as error:
                self._disconnect()
                log.warning("access records cannot be written: %s", type(error).__name__)
            except SessionRefusedError as error:
                self._disconnect()
                log.error("access records cannot be written: %s", error)
            except Exception:
                # Whatever it was, the next batch gets a new connection and a new chance.
                self._disconnect()
                log.exception("access records cannot be written")
            finally:
                for waiter in batch:
                    _recorder_refuse(waiter)
                    self._waiting.task_done()

    async def _record(self, batch: list[_RecorderWaiter]) -> None:
        """Append the batch; where its content is at fault, each caller's records on their own."""
        try:
            await self._append(batch, append_records)
        except AWAY:
            raise
        except _REFUSED:
            async with asyncio.timeout(self._timeout_seconds):
                for waiter in batch:
                    await self._record_alone(waiter)

    async def _record_alone(self, waiter: _RecorderWaiter) -> None:
        """Append what one caller brought; records that are there already are as good as new."""
        try:
            await self._append([waiter], insert_records)
        except AWAY:
            raise
        except _REFUSED as error:
            log.warning("an access record was refused: %s", type(error).__name__)

    async def _append(self, batch: list[_RecorderWaiter], append: Append) -> None:
        # Who gave up, or was cancelled, while waiting is not recorded as having begun.
        living = [waiter for waiter in batch if not waiter.done.done()]
        if not living:
            return
        async with asyncio.timeout(self._timeout_seconds):
            conn = await self._connect()
            # A crash before the commit leaves nothing; one after it leaves an intent without an
            # outcome, which the worker closes as interrupted.
            await append(conn, [item for waiter in living for item in waiter.records])
        for waiter in living:
            if not waiter.done.done():
                waiter.done.set_result(None)

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._conn is None or self._conn.is_closed():
            milliseconds = str(max(1, int(self._timeout_seconds * 1000)))
            asked = {
                **SERVICE_SESSION,
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "application_name": APPLICATION,
            }
            self._conn = await asyncpg.connect(
                self._dsn, timeout=self._timeout_seconds, server_settings=asked
            )
            await require_session(self._conn, asked)
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


def _recorder_refuse(waiter: _RecorderWaiter) -> None:
    if not waiter.done.done():
        waiter.done.set_exception(RecordsUnavailableError())


# ---- Wires what commits for many: each statement that is worth sharing, on a connection of its
# own.


@dataclass(frozen=True, slots=True)
class Committers:
    """The seven: two for uploads, one for reads, four for faxes."""

    announcer: GroupCommitter[Announcement, Announced]
    keeper: GroupCommitter[Keeping, Kept]
    finder: GroupCommitter[UUID, Found]
    fax_finder: GroupCommitter[UUID, Looked]
    fax_opener: GroupCommitter[Opening, Opened]
    fax_taker: GroupCommitter[NewFax, Taken]
    fax_ender: GroupCommitter[Ending, Fax | None]


async def open_committers(
    stack: AsyncExitStack, config: Config, dsn: str, pool: Pool, keyring: Keyring
) -> Committers:
    """Open all of them until the stack is left."""

    async def opened(
        name: str,
        together: Commit[Item, Result],
        alone: CommitAlone[Item, Result],
        timeout_seconds: float = config.database_timeout_seconds,
    ) -> GroupCommitter[Item, Result]:
        return await stack.enter_async_context(
            GroupCommitter(
                name,
                dsn,
                pool,
                together=together,
                alone=alone,
                role=SERVICE_ROLE,
                timeout_seconds=timeout_seconds,
            )
        )

    return Committers(
        announcer=await opened(
            "announcer", announce_many, announce_one, config.record_timeout_seconds
        ),
        keeper=await opened("keeper", keep_many, keep_one),
        finder=await opened("finder", find_many, find_with_key),
        fax_finder=await opened("fax-finder", look_at_many, look_at_one),
        fax_opener=await opened("fax-opener", open_many, open_one, config.record_timeout_seconds),
        fax_taker=await opened("fax-taker", take_many, take_one),
        fax_ender=await opened("fax-ender", partial(end_many, keyring), partial(end_one, keyring)),
    )
