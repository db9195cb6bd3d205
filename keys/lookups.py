"""Lookups that everybody who wants the same waits for together."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


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
