"""
One commit for many: what waits while a commit is under way goes into the next one together.

Each shared statement has a group of its own, on a connection of its own. A group never waits for a
row of an item that somebody has locked. What is left out for that, and what the database refuses,
is tried again alone, on a connection of the pool and in its caller's own task: so nothing that is
wrong or slow with one item delays or fails another. What all of them need is waited for together:
faxes that end wait for the switch of a seal that has their tree. When the answer to a commit is
lost, every item of the group fails, and may have been committed nevertheless.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Generic, Self

import asyncpg

from keys.ground.postgres import AWAY, Connection, Pool
from vault.domain.records import Record
from vault.errors import DatabaseUnavailableError, RecordsUnavailableError, VaultError
from vault.process.outages import Outages, named
from vault.sql.log import append_records, insert_records
from vault.sql.session import SERVICE_SESSION, SessionRefusedError, require_session
from vault.sql.shared import Commit, Item, Result, Shared

log = logging.getLogger(__name__)

#: A group takes so many items at most, in the order in which they came; others wait.
GROUP_MAX = 100
#: A batch of records takes no further caller once it has so many; one caller may bring more.
BATCH_RECORDS_MAX = 500
#: So many callers at most wait for one group.
WAITERS_MAX = 10_000
#: So many turns of the loop at most a group waits for more to come, where the last one had company.
#: A turn takes as long as what is to be done in it: next to nothing where there is nothing.
COMPANY_TURNS = 25
ACQUIRE_SECONDS = 5.0
#: How the recorder's session is called in the database, by which a running vault is known.
APPLICATION = "portvault-recorder"
#: What is said of an item that cannot be written, by the database or by who encodes it.
_REFUSED = (asyncpg.PostgresError, ValueError, TypeError, OverflowError)


class _Waiter(Generic[Item, Result]):
    __slots__ = ("done", "item", "timer")

    def __init__(self, item: Item, refuse: Callable[[Self], None], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.item = item
        #: None: try it alone.
        self.done: asyncio.Future[Result | None] = loop.create_future()
        self.timer = loop.call_later(seconds, refuse, self)


class _Group(Generic[Item, Result]):
    """
    Commits what waits for one statement, group by group, on a connection of its own.

    What it cannot commit within `timeout_seconds` fails with `refusal`.
    """

    refusal: type[VaultError] = DatabaseUnavailableError

    def __init__(
        self, name: str, dsn: str, together: Commit[Item, Result], *, timeout_seconds: float
    ) -> None:
        self._name, self._dsn, self._together = name, dsn, together
        self._outages = Outages(log)
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[_Waiter[Item, Result]] = deque()
        self._came = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take items from now on; the task has nothing of the context it is started in."""
        self._task = asyncio.create_task(self._run(), name=self._name, context=Context())

    async def close(self) -> None:
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
                self._refuse(self._waiting.popleft())
            self._disconnect()

    def put(self, item: Item) -> asyncio.Future[Result | None]:
        """
        Queue the item now and return a future: its result once it is durable, None: try it alone.

        It fails with `refusal` in bounded time; cancelling it before its group is sent withdraws
        the item. Raises `refusal` where too many wait, or nothing is taken any more.
        """
        if self._task is None or len(self._waiting) >= WAITERS_MAX:
            raise self.refusal
        waiter: _Waiter[Item, Result] = _Waiter(item, self._refuse, self._timeout_seconds)
        self._waiting.append(waiter)
        self._idle.clear()
        self._came.set()
        return waiter.done

    def _full(self) -> int:
        return GROUP_MAX

    def _size(self, item: Item) -> int:
        del item
        return 1

    async def _run(self) -> None:
        group: list[_Waiter[Item, Result]] = []
        while True:
            await self._came.wait()
            await wait_for_company(self._waiting.__len__, last=len(group), full=self._full())
            group = self._take()
            try:
                if group:
                    await self._commit(group)
                    self._outages.works(self._name)
            except AWAY as error:
                self._disconnect()
                self._outages.failed(self._name, f"nothing can be committed: {named(error)}")
            except SessionRefusedError as error:
                self._disconnect()
                self._outages.failed(
                    self._name, f"nothing can be committed: {error}", level=logging.ERROR
                )
            except Exception:
                # Whatever it was, the next group gets a new connection and a new chance.
                self._disconnect()
                log.exception("%s: nothing can be committed", self._name)
            finally:
                for waiter in group:
                    self._refuse(waiter)
            if not self._waiting:
                self._came.clear()
                self._idle.set()

    def _take(self) -> list[_Waiter[Item, Result]]:
        group: list[_Waiter[Item, Result]] = []
        size, full = 0, self._full()
        while self._waiting and size < full:
            waiter = self._waiting.popleft()
            # Who gave up, or was cancelled, while waiting is not part of it.
            if waiter.done.done():
                waiter.timer.cancel()
                continue
            group.append(waiter)
            size += self._size(waiter.item)
        return group

    async def _commit(self, group: list[_Waiter[Item, Result]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                conn = await self._connect()
                # One transaction: a crash before its commit leaves nothing of any item.
                results = await self._together(conn, [waiter.item for waiter in group])
        except AWAY:
            raise
        except _REFUSED as error:
            log.warning("%s: a group was refused: %s", self._name, type(error).__name__)
            await self._commit_singly(group)
        else:
            for waiter, result in zip(group, results, strict=True):
                _answer(waiter, result)

    async def _commit_singly(self, group: list[_Waiter[Item, Result]]) -> None:
        for waiter in group:
            _answer(waiter, None)

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._conn is None or self._conn.is_closed():
            milliseconds = str(max(1, int(self._timeout_seconds * 1000)))
            asked = {
                **SERVICE_SESSION,
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                "application_name": f"portvault-{self._name}",
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

    def _refuse(self, waiter: _Waiter[Item, Result]) -> None:
        """Let go of a waiter; one that has no answer by now is refused."""
        waiter.timer.cancel()
        if not waiter.done.done():
            waiter.done.set_exception(self.refusal())


def _answer(waiter: _Waiter[Item, Result], result: Result | None) -> None:
    if not waiter.done.done():
        waiter.done.set_result(result)


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


class GroupCommitter:
    """
    Commits shared statements in groups, a group for each statement; an async context manager.

    A group begins with the first item of its statement.
    """

    def __init__(
        self, dsn: str, pool: Pool, *, timeout_seconds: float, record_timeout_seconds: float
    ) -> None:
        self._dsn, self._pool = dsn, pool
        self._timeouts = {False: timeout_seconds, True: record_timeout_seconds}
        self._groups: dict[Shared[Any, Any], _Group[Any, Any]] = {}
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        """Give what still waits the usual time to be committed, then refuse it."""
        self._open = False
        await asyncio.gather(*(group.close() for group in self._groups.values()))

    async def submit(self, statement: Shared[Item, Result], item: Item) -> Result:
        """
        Return the result once it is durable.

        Raises `DatabaseUnavailableError` in bounded time when it is not known to be, and what the
        database says where the item itself is refused. A caller that is cancelled before its group
        was sent is left out of it.
        """
        group = self._groups.get(statement) or self._begin(statement)
        result: Result | None = await group.put(item)
        return await self._try_alone(statement, item) if result is None else result

    def _begin(self, statement: Shared[Item, Result]) -> _Group[Item, Result]:
        if not self._open:
            raise DatabaseUnavailableError
        group = _Group(
            statement.name,
            self._dsn,
            statement.together,
            timeout_seconds=self._timeouts[statement.intents],
        )
        group.start()
        self._groups[statement] = group
        return group

    async def _try_alone(self, statement: Shared[Item, Result], item: Item) -> Result:
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as conn:
                return await statement.alone(conn, item)
        except AWAY as error:
            raise DatabaseUnavailableError from error


async def _append_together(conn: Connection, groups: Sequence[Sequence[Record]]) -> list[None]:
    # A crash before the commit leaves nothing; one after it leaves an intent without an outcome,
    # which the worker closes as interrupted.
    await append_records(conn, [record for records in groups for record in records])
    return [None] * len(groups)


class GroupRecorder(_Group[Sequence[Record], None]):
    """
    Makes access records durable: all callers that wait share the next commit.

    One connection of its own and none of the pool's, so that a pool that is busy with documents
    never delays a record. A failure, or more time than allowed, is `RecordsUnavailableError` to
    each caller whose record may not be durable; a record that went in nevertheless is harmless, and
    inserting it again is, too.
    """

    refusal = RecordsUnavailableError

    def __init__(self, dsn: str, *, timeout_seconds: float) -> None:
        super().__init__("recorder", dsn, _append_together, timeout_seconds=timeout_seconds)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def append(self, record: Record) -> None:
        """Return once the record is durable; raises `RecordsUnavailableError` in bounded time."""
        await self.put([record])

    def append_many(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """
        Queue the records now and return a future that is done when all are durable.

        It fails with `RecordsUnavailableError` in bounded time; cancelling it before its batch is
        sent withdraws the records.
        """
        if records or self._task is None:
            return self.put(records)
        nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        nothing.set_result(None)
        return nothing

    def _full(self) -> int:
        return BATCH_RECORDS_MAX

    def _size(self, item: Sequence[Record]) -> int:
        return len(item)

    async def _commit_singly(self, group: list[_Waiter[Sequence[Record], None]]) -> None:
        """Append what each caller brought; records that are there already are as good as new."""
        async with asyncio.timeout(self._timeout_seconds):
            for waiter in group:
                if waiter.done.done():
                    continue
                try:
                    await insert_records(await self._connect(), waiter.item)
                except AWAY:
                    raise
                except _REFUSED as error:
                    log.warning("an access record was refused: %s", type(error).__name__)
                else:
                    _answer(waiter, None)
