"""
Open streams: each is looked at again while it flows, and cut when it may not go on.

All that a process has open is looked up in one statement every `stream_look_seconds`: whether the
principal's token or session still lives, whether the document or fax is still in custody and not
restricted meanwhile; then the same decision is made again as at the beginning. What may not go on
is cancelled wherever it waits: for its reader, for the store, for the next hop.

A stream holds the key of its document, and so has the lease of every unwrapped key,
`key_cache_seconds` since it was last seen living: when the database does not answer, what goes out
is cut after that. A seal says `irrecoverable` only once all such leases have run out, so no stream
of any process outlives what it says.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import UUID

import asyncpg

from vault.config.settings import Config
from vault.domain.access import OUTGOING, Action, Principal
from vault.domain.decision import Circumstances, Decision, Reason, Rules, decide
from vault.errors import DatabaseUnavailableError
from vault.process.meter import Exceeded, Meter
from vault.sql import documents as documents_sql
from vault.sql.connection import Pool, connection
from vault.sql.documents import Stands

# ---- What of an answer is still on this side of a connection, and how it is kept from going out.
#
# What was written lies in the transport's buffer and then in the kernel's, and would go out long
# after a stream was cut. The kernel keeps little that is unsent, and a cut throws it away.

#: What the kernel takes of a stream beyond what the peer has room for.
UNSENT_BYTES_MAX = 64 * 1024
#: Asks Linux for the bytes of a TCP connection that were not sent yet (linux/sockios.h).
_SIOCOUTQNSD = 0x894B
_RESET = struct.pack("ii", 1, 0)


def keep_unsent_small(transport: asyncio.BaseTransport) -> None:
    """Have the kernel take no more than `UNSENT_BYTES_MAX` that it cannot send yet."""
    if (connected := _tcp(transport)) is not None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how many bytes wait here that the peer has not been sent."""
    waiting = transport.get_write_buffer_size()
    connected = _tcp(transport)
    if connected is None or connected.fileno() < 0:
        return waiting
    answer = fcntl.ioctl(connected.fileno(), _SIOCOUTQNSD, struct.pack("i", 0))
    return waiting + int(struct.unpack("i", answer)[0])


def reset(transport: asyncio.WriteTransport) -> None:
    """Cut a connection and throw away what waits here; the peer is told so by a reset (RST)."""
    connected = _tcp(transport)
    if connected is not None and connected.fileno() >= 0:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _tcp(transport: asyncio.BaseTransport) -> socket.socket | None:
    connected: socket.socket | None = transport.get_extra_info("socket")
    inet = connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6)
    return connected if inet else None


# ---- Streams. -----------------------------------------------------------------------------------

log = logging.getLogger(__name__)

#: A lease is looked at at least so many times before it runs out.
LOOKS_PER_LEASE = 4


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a stream was cut, and the limit that was passed, where it was one."""

    decision: Decision
    over: Exceeded | None = None


@dataclass(eq=False, slots=True)
class Stream:
    """One open stream; an async context manager, within which it may be cancelled."""

    streams: "Streams"
    principal: Principal
    action: Action
    document: UUID | None
    #: What was decided upon when it was opened.
    case: Circumstances
    #: When it was opened and when it was last seen to be allowed (monotonic seconds).
    begun_at: float
    seen_at: float
    ended: Ended | None = None
    _scope: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self.streams.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise `TimeoutError` where the stream was cut."""
        self.streams.remove(self)
        await self._scope.__aexit__(kind, error, traceback)

    @property
    def goes_out(self) -> bool:
        """Whether it carries something out of the vault, and not in."""
        return self.action in OUTGOING

    async def renew(self) -> None:
        """Go on before each piece; what was not looked at in time is looked at now, or cut."""
        if time.monotonic() - self.seen_at < self.streams.lease_seconds:
            return
        await self.streams.look_at([self])
        if self.ended is not None:
            # The cancellation that `cut` asked for arrives here.
            await asyncio.get_running_loop().create_future()

    def cut(self, ended: Ended) -> None:
        """Cancel what it waits for; safe to repeat."""
        if self.ended is None:
            self.ended = ended
            self._scope.reschedule(asyncio.get_running_loop().time())


class Streams:
    """The open streams of one process; `run` looks at them."""

    def __init__(
        self,
        pool: Pool,
        config: Config,
        rules: Rules,
        meter: Meter,
        clock: Callable[[], datetime],
    ) -> None:
        self._pool, self._config, self._rules = pool, config, rules
        self._meter, self._clock = meter, clock
        self._open = set[Stream]()
        self.lease_seconds = config.key_cache_seconds
        self._look_seconds = min(config.stream_look_seconds, self.lease_seconds / LOOKS_PER_LEASE)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream) -> None:
        """Begin to look at a stream."""
        self._open.add(stream)

    def remove(self, stream: Stream) -> None:
        """Look at it no more."""
        self._open.discard(stream)

    async def run(self) -> None:
        """Look at what is open again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            due = time.monotonic() - self._look_seconds
            try:
                await self.look_at([stream for stream in self._open if stream.seen_at <= due])
            except Exception:
                # Whatever it was, the leases run out.
                log.exception("open streams cannot be looked at")

    async def look_at(self, streams: list[Stream]) -> None:
        """Look at streams in one statement, and cut those that may not go on."""
        if not streams:
            return
        seen_at, now = time.monotonic(), self._clock()
        try:
            async with asyncio.timeout(self.lease_seconds), connection(self._pool) as conn:
                found = await documents_sql.stand(
                    conn, [(stream.principal, stream.document) for stream in streams], now
                )
        except (DatabaseUnavailableError, asyncpg.PostgresError, TimeoutError):
            self._cut_lapsed(streams)
            return
        for stream, stands in zip(streams, found, strict=True):
            ended = self._judge(stream, stands, now)
            if ended is None:
                stream.seen_at = seen_at
            elif stream in self._open:
                log.info("a stream is cut: %s", ended.decision.reason)
                stream.cut(ended)

    def _cut_lapsed(self, streams: list[Stream]) -> None:
        """Cut what goes out and was not seen in time; what comes in waits for its own commit."""
        lapsed = time.monotonic() - self.lease_seconds
        for stream in streams:
            if stream in self._open and stream.goes_out and stream.seen_at <= lapsed:
                stream.cut(_ended(Reason.RECORDS))

    def _judge(self, stream: Stream, stands: Stands, now: datetime) -> Ended | None:
        """Return why a stream may not go on; None where it may."""
        if not stands.living:
            return _ended(Reason.ENDED)
        case = replace(stream.case, at=now, exceeded=None)
        if stream.goes_out:
            if time.monotonic() - stream.begun_at >= self._config.stream_seconds_max:
                return _ended(Reason.AGE)
            over = self._meter.past(stream.principal)
            if over is not None:
                return Ended(Decision(False, Reason.LIMIT, over.detail), over)
            case = replace(case, custody=stands.custody, restricted=stands.restricted)
        decision = decide(self._rules, stream.principal, stream.action, case)
        return None if decision.allow else Ended(decision)


def _ended(reason: Reason) -> Ended:
    return Ended(Decision(False, reason))
