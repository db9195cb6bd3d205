"""A cache of unwrapped keys, bounded in number and in time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The most recently used entries, none older than `seconds`."""

    def __init__(self, seconds: float, entries: int) -> None:
        self._seconds, self._entries = seconds, entries
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Cache({len(self._kept)} entries)"

    def find(self, name: K) -> V | None:
        """Return the entry, unless it is too old."""
        found = self._kept.get(name)
        if found is None:
            return None
        if found[0] <= time.monotonic():
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        return found[1]

    def keep(self, name: K, value: V, read_at: float) -> None:
        """Keep an entry whose age counts from `read_at` (monotonic seconds)."""
        self._kept[name] = (read_at + self._seconds, value)
        self._kept.move_to_end(name)
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)

    def drop(self, name: K) -> None:
        """Forget one entry."""
        self._kept.pop(name, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


# ---- Lookups that everybody who wants the same waits for together. ------------------------------


class Lookups(Generic[K, V]):
    """What is being looked up now: a cache that runs out under load asks once, not for each."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    def __repr__(self) -> str:
        return f"Lookups({len(self._running)} running)"

    async def share(self, name: K, look_up: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """
        Return what a look-up finds, or raise what it raises; begins one where none is under way.

        It goes on when who began it is cancelled: others may wait for it.
        """
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(look_up())
            task.add_done_callback(partial(self._ended, name))
        return await asyncio.shield(task)

    def clear(self) -> None:
        """Have the next who asks look anew; who waits already gets what was begun before."""
        self._running.clear()

    def _ended(self, name: K, task: asyncio.Task[V]) -> None:
        if self._running.get(name) is task:
            del self._running[name]
        if not task.cancelled():
            # Where nobody waits any more, its failure is no news.
            task.exception()
