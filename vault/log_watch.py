"""
Watches how long records wait to be published, so that nothing is handed out while the log stands.

A process asks the database once a second for all regions, never in a request's way; what a request
is told is the last answer and the time since. Where the database does not answer, the time since
grows, and the records that a request needs cannot be written either.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from vault.errors import DatabaseUnavailableError, RecordsUnavailableError
from vault.sql.connection import Pool, connection
from vault.sql.log import waiting_seconds

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class LogWatch:
    """How long the oldest record of each region waits, as this process last knew."""

    def __init__(self, pool: Pool, regions: Sequence[str], *, seconds_max: float) -> None:
        self._pool, self._regions, self._seconds_max = pool, tuple(regions), seconds_max
        self._seconds: dict[str, float | None] = dict.fromkeys(self._regions)
        self._looked_at = time.monotonic()
        self._standing: frozenset[str] = frozenset()

    async def look(self) -> None:
        """Ask the database; raises `DatabaseUnavailableError`."""
        before = time.monotonic()
        async with connection(self._pool) as conn:
            self._seconds = await waiting_seconds(conn, self._regions)
        self._looked_at = before
        standing = frozenset(self.standing())
        for region in standing - self._standing:
            log.error("%s", self._message(region))
        self._standing = standing

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except DatabaseUnavailableError:
                log.warning("how long access records wait is not known: the database is away")

    def seconds(self, region: str) -> float:
        """Return how long, in seconds and at most, the region's oldest waiting record waits."""
        waited = self._seconds.get(region)
        since = time.monotonic() - self._looked_at
        # What was made since the last look waits less than since then.
        return since if waited is None else waited + since

    def standing(self) -> list[str]:
        """Return the regions whose records wait for longer than `record_publish_seconds_max`."""
        return [region for region in self._regions if self.seconds(region) > self._seconds_max]

    def require(self, region: str) -> None:
        """Raise `RecordsUnavailableError` while the region's log stands still."""
        if self.seconds(region) > self._seconds_max:
            raise RecordsUnavailableError(self._message(region))

    def _message(self, region: str) -> str:
        return (
            f"records of {region} wait for longer than {self._seconds_max:g} seconds to be "
            "published in the access log, so nothing is handed out; does a worker run?"
        )
