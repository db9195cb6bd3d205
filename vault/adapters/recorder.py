"""
Makes access records durable: all callers that wait share the next commit.

One connection of its own, so that a pool that is busy with documents never delays a record. A
failure, or more time than allowed, is `RecordsUnavailableError` to each caller whose record may not
be durable; a record that went in nevertheless is harmless, and inserting it again is, too.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from vault.adapters.committer import wait_for_company
from vault.domain.records import Record
from vault.errors import RecordsUnavailableError
from vault.sql.connection import AWAY, Connection
from vault.sql.log import append_records, insert_records
from vault.sql.session import SERVICE_SESSION, SessionRefusedError, require_session

log = logging.getLogger(__name__)

WAITERS_MAX = 10_000
#: How the recorder's session is called in the database, by which a running vault is known.
APPLICATION = "portvault-recorder"
#: What is said of a record that cannot be written, by the database or by who encodes it.
_REFUSED = (asyncpg.PostgresError, ValueError, TypeError, OverflowError)
#: A batch takes no further caller once it has so many records; one caller may bring more.
BATCH_RECORDS_MAX = 500


Append = Callable[[Connection, Sequence[Record]], Awaitable[None]]


@dataclass(slots=True)
class _Waiter:
    records: Sequence[Record]
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class GroupRecorder:
    """Appends in groups; an async context manager."""

    def __init__(self, dsn: str, *, timeout_seconds: float) -> None:
        self._dsn, self._timeout_seconds = dsn, timeout_seconds
        self._waiting: asyncio.Queue[_Waiter] = asyncio.Queue(WAITERS_MAX)
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
                _refuse(self._waiting.get_nowait())
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
        waiter = _Waiter(records)
        if not records:
            waiter.done.set_result(None)
            return waiter.done
        try:
            self._waiting.put_nowait(waiter)
        except asyncio.QueueFull:
            raise RecordsUnavailableError from None
        timer = asyncio.get_running_loop().call_later(self._timeout_seconds, _refuse, waiter)
        waiter.done.add_done_callback(lambda _: timer.cancel())
        return waiter.done

    async def _run(self) -> None:
        batch: list[_Waiter] = []
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
                    _refuse(waiter)
                    self._waiting.task_done()

    async def _record(self, batch: list[_Waiter]) -> None:
        """Append the batch; where its content is at fault, each caller's records on their own."""
        try:
            await self._append(batch, append_records)
        except AWAY:
            raise
        except _REFUSED:
            async with asyncio.timeout(self._timeout_seconds):
                for waiter in batch:
                    await self._record_alone(waiter)

    async def _record_alone(self, waiter: _Waiter) -> None:
        """Append what one caller brought; records that are there already are as good as new."""
        try:
            await self._append([waiter], insert_records)
        except AWAY:
            raise
        except _REFUSED as error:
            log.warning("an access record was refused: %s", type(error).__name__)

    async def _append(self, batch: list[_Waiter], append: Append) -> None:
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


def _refuse(waiter: _Waiter) -> None:
    if not waiter.done.done():
        waiter.done.set_exception(RecordsUnavailableError())
