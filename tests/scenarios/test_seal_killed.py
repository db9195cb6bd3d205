"""A process that seals is killed before every one of its calls; the next one ends it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fixtures_postgres import Address, fresh_database
from tests.key_house import REGION, House, Ledger, build


class Killed:
    """A database on which processes seal that are killed before their n-th call."""

    def __init__(self, dsn: str, place: Path) -> None:
        self._dsn, self._place = dsn, place
        self._log = place / "wraps"
        self._ledger = Ledger()
        self._before: House | None = None

    def seal_killed(self, call: int) -> bool:
        """Seal in a process of its own; returns whether it was killed."""
        child = os.fork()
        if child == 0:
            self._seal_as_child(call)
        _, status = os.waitpid(child, 0)
        if self._log.exists():
            self._ledger.load(self._log)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    def _seal_as_child(self, call: int) -> None:
        code = 1
        try:
            self._ledger.file = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            asyncio.run(self._seal(call))
            code = 0
        finally:
            os._exit(code)

    async def _seal(self, call: int) -> None:
        with self._ledger.listening():
            async with build(self._dsn, self._place, self._ledger) as house:
                house.faults.kills = True
                house.faults.arm(call)
                await house.keyring.seal(REGION)

    async def prepare(self) -> None:
        """Keep some keys, and shred one that has a neighbour and one that stands alone."""
        async with self._house() as house:
            await house.keyring.start_region(REGION)
            first, alone = await house.put(2)
            await house.put(beside=first)
            await house.shred(first, alone)

    async def end(self) -> None:
        """Check what the killed process left, seal again, and check that it is done."""
        async with self._house() as house:
            await house.check()
            await house.keyring.seal(REGION)
            await house.check()
            assert await house.sealed() == set(house.shredded)

    @asynccontextmanager
    async def _house(self) -> AsyncIterator[House]:
        with self._ledger.listening():
            async with build(self._dsn, self._place, self._ledger, self._before) as house:
                self._before = house
                yield house


def test_killed_between_any_two_steps_a_seal_is_finished_by_the_next(
    postgres_server: Address, database_template: str, tmp_path: Path
) -> None:
    """Nothing sealed opens and nothing living is lost, wherever the process was killed."""
    with asyncio.Runner() as runner:
        databases = fresh_database(postgres_server, database_template)
        killed = Killed(runner.run(_next(databases)), tmp_path)
        call, kills = 0, 0
        while True:
            call += 1
            runner.run(killed.prepare())
            if not killed.seal_killed(call):
                break
            kills += 1
            runner.run(killed.end())
        assert kills > 30
        runner.run(_next(databases))


async def _next(databases: AsyncIterator[str]) -> str:
    return await anext(databases, "")
