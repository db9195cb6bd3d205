"""
A process that uploads, reads and shreds for some seconds: `python -m tests.key_worker DSN PLACE N`.

Several uploaders and several readers at once, and one that shreds. Readers take any key that lies
in the database, also of another process, and their own that were shredded. Prints as JSON what it
kept, what it shredded, how often it read, which keys were no more when it read them, and every
failure.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from keys.data_keys import COLUMNS, wrapped_key
from keys.errors import KeysError, StaleScopeError
from tests.key_house import ATTEMPTS, REGION, House, build

UPLOADERS, READERS = 3, 3


@dataclass
class Worker:
    """What a process does to the keys, and what it learned of them."""

    house: House
    until: float
    reads: int = 0
    #: Keys that were gone when a reader came.
    gone: set[UUID] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    async def upload(self) -> None:
        """Open a scope with a key, and add two more to it."""
        (first,) = await self.house.put()
        for _ in range(2):
            await self._upload(self.house.scopes[first])

    async def _upload(self, scope: UUID) -> None:
        """Keep a key in a scope that is sealed again and again; wraps it anew when it must."""
        identity, house = uuid4(), self.house
        key, wrapped = await house.keyring.new_key(REGION, scope, identity)
        for _ in range(ATTEMPTS):
            async with house.pool.acquire() as conn, conn.transaction():
                stale = await house.keep(conn, [wrapped])
            if stale:
                wrapped = await house.keyring.rewrap(key, wrapped)
            else:
                house.data_keys[identity], house.scopes[identity] = key.reveal(), scope
                return
        raise KeysError("an upload was always too late")

    async def read(self) -> None:
        """Open a key of this process, and one of any."""
        if self.house.data_keys:
            await self._read(random.choice(list(self.house.data_keys)))
        async with self.house.pool.acquire() as conn:
            found = await conn.fetchval(
                "select id from data_key where id >= $1 order by id limit 1", uuid4()
            )
        if found is not None:
            await self._read(found)

    async def _read(self, identity: UUID) -> None:
        """Open a key, from its row anew when a seal came between."""
        house = self.house
        for _ in range(ATTEMPTS):
            async with house.pool.acquire() as conn:
                row = await conn.fetchrow(
                    f"select {COLUMNS} from data_key where id = $1",
                    identity,
                )
            if row is None:
                self.gone.add(identity)
                return
            try:
                opened = await house.keyring.open_key(wrapped_key(row))
            except StaleScopeError:
                continue
            self.reads += 1
            if opened.reveal() != house.data_keys.get(identity, opened.reveal()):
                raise KeysError("a read gave another key")
            return
        raise KeysError("a read was always too late")

    async def shred(self) -> None:
        """Shred a key of this process."""
        if self.house.living:
            await self.house.shred(random.choice(self.house.living))
        await asyncio.sleep(0.02)

    async def run(self) -> None:
        """Do all of it at once until the time is over."""
        steps = [self.upload] * UPLOADERS + [self.read] * READERS + [self.shred]
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(self._repeat(step))

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self.until:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - every failure is told
                self.failures.append(f"{type(error).__name__}: {error}")


async def work(dsn: str, place: Path, seconds: float) -> None:
    """Work, and tell."""
    async with build(dsn, place) as house:
        await house.keyring.start_region(REGION)
        worker = Worker(house, time.monotonic() + seconds)
        await worker.run()
        told = {
            "kept": {str(key): house.data_keys[key].hex() for key in house.living},
            "shredded": [str(key) for key in house.shredded],
            "gone": [str(key) for key in worker.gone],
            "reads": worker.reads,
            "failures": worker.failures,
        }
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
