"""
Makes access records durable: all callers that wait share the next commit.

One connection of its own, so that a pool that is busy with documents never delays a record. A
failure, or more time than allowed, is `RecordsUnavailableError` to each caller whose record may not
be durable; a record that went in nevertheless is harmless, and inserting it again is, too.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from vault.domain.records import Record
from vault.errors import RecordsUnavailableError
from vault.sql.log import insert_records

WAITERS_MAX = 10_000
BATCH_MAX = 500


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
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._disconnect()

    async def append(self, record: Record) -> None:
        """Return once the record is durable."""
        await self.append_many([record])

    async def append_many(self, records: Sequence[Record]) -> None:
        """Return once all are durable; raises `RecordsUnavailableError` in bounded time."""
        waiter = _Waiter(records)
        try:
            self._waiting.put_nowait(waiter)
            async with asyncio.timeout(self._timeout_seconds):
                await waiter.done
        except (asyncio.QueueFull, TimeoutError):
            raise RecordsUnavailableError from None

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH_MAX and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Who gave up, or was cancelled, while waiting is not recorded as having begun.
            batch = [waiter for waiter in batch if not waiter.done.done()]
            if not batch:
                continue
            if not await self._insert(batch) and len(batch) > 1 and self._conn is not None:
                # One record that cannot be written must not refuse the others.
                for waiter in batch:
                    await self._insert([waiter])
            for waiter in batch:
                if not waiter.done.done():
                    waiter.done.set_exception(RecordsUnavailableError())

    async def _insert(self, batch: list[_Waiter]) -> bool:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                conn = await self._connect()
                await insert_records(conn, [item for waiter in batch for item in waiter.records])
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            self._disconnect()
            return False
        except asyncpg.PostgresError:
            return False
        for waiter in batch:
            if not waiter.done.done():
                waiter.done.set_result(None)
        return True

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._conn is None or self._conn.is_closed():
            milliseconds = str(int(self._timeout_seconds * 1000))
            self._conn = await asyncpg.connect(
                self._dsn,
                timeout=self._timeout_seconds,
                server_settings={
                    "statement_timeout": milliseconds,
                    "lock_timeout": milliseconds,
                    "application_name": "portvault-recorder",
                },
            )
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None
