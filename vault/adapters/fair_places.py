"""
Places that are shared fairly: whoever has used least of them is next.

What a sender has used is the time for which it held places. So one that asks slow questions, or
many, waits behind all others until they have used as much; one who comes anew begins at what the
others have used by then, and cannot save up time. A place that is taken is not taken away again:
therefore a sender whose questions are slow never holds the last place, where there are several.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

#: A sender whose last question took longer leaves one place to the others.
SLOW_SECONDS = 0.25
#: Of those who want nothing now so many are remembered; who has used least is forgotten first.
REMEMBERED_MAX = 1000


@dataclass(slots=True)
class _Sender:
    """How long a sender held places, in seconds, when those began that it has, and who waits."""

    used: float
    begun: list[float] = field(default_factory=list)
    waiting: deque[asyncio.Future[float]] = field(default_factory=deque)
    last: float = 0.0

    def used_by(self, now: float) -> float:
        """Return the seconds that it has used, those of the places that it has now among them."""
        return self.used + sum(now - at for at in self.begun)

    def is_slow(self, now: float) -> bool:
        """Whether its last question, or one that is being answered, takes long."""
        return self.last > SLOW_SECONDS or any(now - at > SLOW_SECONDS for at in self.begun)


class FairPlaces:
    """So many places; who waits for one longest gets none before who has used less."""

    def __init__(self, places: int) -> None:
        self._places, self._free = places, places
        self._senders: dict[str, _Sender] = {}
        #: What the sender that was served last had used: where who comes anew begins.
        self._floor = 0.0

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return self._free

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[None]:
        """Hold a place within the block, after waiting for the sender's turn."""
        sender = self._senders.get(name)
        if sender is None:
            sender = self._senders[name] = _Sender(self._floor)
        elif not sender.begun and not sender.waiting:
            sender.used = max(sender.used, self._floor)
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        sender.waiting.append(turn)
        self._serve()
        try:
            began = await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # Its turn had come, and is another's now.
                self._give_back(name, sender, turn.result())
            else:
                with suppress(ValueError):
                    sender.waiting.remove(turn)
                self._forget(name, sender)
            raise
        try:
            yield
        finally:
            self._give_back(name, sender, began)

    def _give_back(self, name: str, sender: _Sender, began: float) -> None:
        sender.begun.remove(began)
        sender.last = time.monotonic() - began
        sender.used += sender.last
        self._free += 1
        self._serve()
        self._forget(name, sender)

    def _serve(self) -> None:
        """Give free places to those whose turn it is."""
        now = time.monotonic()
        while self._free:
            among = [s for s in self._senders.values() if s.waiting and self._may(s, now)]
            if not among:
                return
            sender = min(among, key=lambda one: one.used_by(now))
            turn = sender.waiting.popleft()
            if turn.done():
                continue
            self._floor = max(self._floor, sender.used)
            self._free -= 1
            sender.begun.append(now)
            turn.set_result(now)

    def _may(self, sender: _Sender, now: float) -> bool:
        # The last place is for those who give it back soon.
        return self._free > 1 or not sender.begun or not sender.is_slow(now)

    def _forget(self, name: str, sender: _Sender) -> None:
        """Keep of those who want nothing only what they have used beyond the others; bounded."""
        if not sender.begun and not sender.waiting and sender.used <= self._floor:
            self._senders.pop(name, None)
        if len(self._senders) <= REMEMBERED_MAX:
            return
        resting = [n for n, one in self._senders.items() if not one.begun and not one.waiting]
        if len(resting) > REMEMBERED_MAX:
            least = self._senders.pop(min(resting, key=lambda n: self._senders[n].used))
            # Who is forgotten would begin there, and so does everybody else.
            self._floor = max(self._floor, least.used)
