"""
Keeps what requests met that is damaged at rest, so that the doctor names it at once.

No request waits for it: a process writes down once a second what its requests met meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from keys.damage import Met
from vault.errors import DatabaseUnavailableError
from vault.sql import damage as damage_sql
from vault.sql.connection import Pool, transaction

log = logging.getLogger(__name__)

NOTE_SECONDS = 1.0


class DamageWatch:
    """What this process's requests met, and did not write down yet."""

    def __init__(self, pool: Pool, met: Met, clock: Callable[[], datetime]) -> None:
        self._pool, self._met, self._clock = pool, met, clock
        self._alone = asyncio.Lock()

    async def note(self) -> None:
        """Write down what was met; raises `DatabaseUnavailableError`, and keeps it then."""
        async with self._alone:
            found = self._met.waiting()
            if not found:
                return
            async with transaction(self._pool) as conn:
                await damage_sql.note(conn, found, self._clock())
            self._met.noted(found)

    async def run(self) -> None:
        """Write down again and again until cancelled."""
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            try:
                await self.note()
            except DatabaseUnavailableError:
                log.warning("what was met damaged is not written down: the database is away")
