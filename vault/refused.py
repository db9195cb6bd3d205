"""
Bounds how many refusals are recorded singly: the log is never deleted, and a refusal costs nothing.

Each process counts the refusals of a principal, and of the address it comes from, by the minute.
Those past a limit are answered with 429 and only counted; when the minute is over one record says
how many there were. What is allowed goes on as ever. A process that dies forgets the count of its
last minute.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from vault.config import Config
from vault.domain.access import Action, Principal
from vault.domain.records import Record
from vault.errors import RecordsUnavailableError

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0
FLUSH_SECONDS = 1.0
#: Principals and addresses that are counted at once; the one that was quiet longest goes first.
COUNTED_MAX = 10_000

#: Where a request comes from; None where that is a proxy, which stands for many, or no network.
ADDRESS: ContextVar[str | None] = ContextVar("address", default=None)


class Recorder(Protocol):
    """Makes records durable."""

    async def append(self, record: Record) -> None:
        """Return once the record is durable."""


@dataclass(slots=True)
class _Window:
    """The refusals of a principal or an address since a moment (monotonic seconds)."""

    since: float
    recorded: int = 0


@dataclass(slots=True)
class _Summary:
    """Refusals of a principal that were only counted, and what the last of them was."""

    since: float
    principal: Principal
    action: Action
    region: str
    number: int = 0


class Refused:
    """The counts of one process; `run` records what was only counted."""

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._config, self._recorder = config, recorder
        self._clock, self._new_id = clock, new_id
        self._windows = OrderedDict[str, _Window]()
        self._summaries: dict[str, _Summary] = {}

    def admit(self, principal: Principal, action: Action, region: str) -> int | None:
        """Count a refusal; None if it is to be recorded singly, else seconds until the next is."""
        address, now = ADDRESS.get(), time.monotonic()
        limits = {f"principal {principal.id}": self._config.refusals_per_minute_max}
        if address is not None:
            limits[f"address {address}"] = self._config.refusals_per_address_max
        windows = {name: self._window(name, now) for name in limits}
        full = [one for name, one in windows.items() if one.recorded >= limits[name]]
        if not full:
            for one in windows.values():
                one.recorded += 1
            return None
        summary = self._summaries.setdefault(principal.id, _Summary(now, principal, action, region))
        summary.number, summary.action, summary.region = summary.number + 1, action, region
        return max(1, round(max(one.since for one in full) + WINDOW_SECONDS - now))

    def _window(self, name: str, now: float) -> _Window:
        window = self._windows.get(name)
        if window is None or now - window.since >= WINDOW_SECONDS:
            window = self._windows[name] = _Window(now)
            if len(self._windows) > COUNTED_MAX:
                self._windows.popitem(last=False)
        self._windows.move_to_end(name)
        return window

    async def run(self) -> None:
        """Record what was only counted, until cancelled, and all of it then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush(time.monotonic() - WINDOW_SECONDS)
        finally:
            await self.flush(time.monotonic())

    async def flush(self, before: float) -> None:
        """Record, for each principal, how many refusals were only counted since before then."""
        due = [name for name, one in self._summaries.items() if one.since <= before]
        for name in due:
            summary = self._summaries.pop(name)
            try:
                # Begun, it goes on where this is cancelled: the count stands nowhere else by now.
                await asyncio.shield(self._recorder.append(self._record(summary)))
            except RecordsUnavailableError:
                log.warning("%d refusals of %s wait to be recorded", summary.number, name)
                with suppress(KeyError):
                    summary.number += self._summaries.pop(name).number
                self._summaries[name] = summary

    def _record(self, summary: _Summary) -> Record:
        return Record(
            id=self._new_id(),
            region=summary.region,
            at=self._clock(),
            phase="intent",
            principal=summary.principal.id,
            role=summary.principal.role,
            action=summary.action.value,
            decision="deny",
            reason=f"not-recorded-singly: {summary.number}",
        )
