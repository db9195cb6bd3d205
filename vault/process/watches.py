"""What a process watches: damage, records that wait, memory that bodies take, fax scopes."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from keys.damage import Met
from vault.errors import DatabaseUnavailableError, RecordsUnavailableError, UnavailableError
from vault.process.outages import Outages, reason_of
from vault.sql import damage as damage_sql
from vault.sql.connection import Pool, connection, transaction
from vault.sql.log import waiting_seconds

# ---- Keeps what requests met that is damaged at rest, so that the doctor names it at once. ------
#
# No request waits for it: a process writes down once a second what its requests met meanwhile.

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
        outages, what = Outages(log), "what was met damaged is not written down"
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            try:
                await self.note()
                outages.works(what)
            except DatabaseUnavailableError as error:
                outages.failed(what, reason_of(error))


# ---- Watches how long records wait to be published, so that nothing is handed out while the log
# stands.
#
# A process asks the database once a second for all regions, never in a request's way; what a
# request is told is the last answer and the time since. Where the database does not answer, the
# time since grows, and the records that a request needs cannot be written either.

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
        outages, what = Outages(log), "how long access records wait is not known"
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
                outages.works(what)
            except DatabaseUnavailableError as error:
                outages.failed(what, reason_of(error))

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


# ---- The memory that bodies take on their way through one process: one account, bounded for all
# of them.
#
# Faxes by HTTP and mail, mails themselves, what the relay sends, exports, parts of documents that
# a store gathers, and small bodies that are parsed are all counted here. Nobody waits: who finds
# no room is refused at once, and comes again. Who is not known yet has a part of it only, so that
# strangers keep nobody else out.

#: The part of the account that bodies of strangers may take together is one in so many.
STRANGERS_PART = 8


@dataclass(slots=True)
class Share:
    """What one body takes of the account, in bytes."""

    account: "IntakeMemory"
    size_bytes: int = 0
    of_stranger: bool = False

    def grow(self, size_bytes: int) -> None:
        """Take so many bytes more; raises `UnavailableError` where there is no room."""
        account = self.account
        full = account.taken_bytes + size_bytes > account.bytes_max
        if self.of_stranger:
            part = account.bytes_max // STRANGERS_PART
            full = full or account.strangers_bytes + size_bytes > part
        if full:
            raise UnavailableError("too much is being received and sent at once; try again")
        self._add(size_bytes)

    def give_back(self) -> None:
        """Take nothing any more."""
        self._add(-self.size_bytes)

    def _add(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self.account.taken_bytes += size_bytes
        if self.of_stranger:
            self.account.strangers_bytes += size_bytes


@dataclass(slots=True)
class IntakeMemory:
    """The account: how many bytes there may be (`intake_memory_bytes_max`), and how many are."""

    bytes_max: int
    taken_bytes: int = 0
    #: How many of them are bodies of strangers.
    strangers_bytes: int = 0

    @contextmanager
    def share(self, size_bytes: int = 0, *, of_stranger: bool = False) -> Iterator[Share]:
        """Hold so many bytes within the block; raises `UnavailableError` where there is no room."""
        share = Share(self, of_stranger=of_stranger)
        share.grow(size_bytes)
        try:
            yield share
        finally:
            share.give_back()


# ---- What one process keeps of the faxes that it receives; nothing of it is missed afterwards.


@dataclass(slots=True)
class FaxScope:
    """A region's scope in the key tree that takes the next faxes of this process."""

    id: UUID | None = None
    faxes: int = 0
    opened_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class FaxDesk:
    """The scopes that are being filled, by region."""

    scopes: dict[str, FaxScope] = field(default_factory=dict)
