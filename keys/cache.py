"""A cache of unwrapped keys, bounded in number and in time."""

import time
from collections import OrderedDict
from typing import Generic, TypeVar

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
