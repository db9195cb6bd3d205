"""The body of one upload: its length is kept to, and its last chunk held back until it is sure."""

import asyncio
from collections.abc import AsyncIterable

from vault.adapters.object_names import check_size


class Body:
    """Chunks for whoever sends them, which is a task of its own."""

    def __init__(self, chunks: AsyncIterable[bytes], size_bytes: int, seconds: float) -> None:
        self._chunks = aiter(chunks)
        self._size_bytes = size_bytes
        self._seconds = seconds
        self._taken = 0
        self._held: bytes | None = None
        self._stopped = False
        self._running = asyncio.Lock()
        #: Since when the server is waited for; None while the chunks are.
        self._since: float | None = asyncio.get_running_loop().time()
        #: Whether the chunks ended well and the last one was given out.
        self.complete = False
        self.failure: Exception | None = None

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        async with self._running:
            if self.complete:
                raise StopAsyncIteration
            if self._stopped:
                raise ConnectionAbortedError
            self._since = None
            try:
                chunk = self._held or await self._next()
                self._held = await self._next()
            except Exception as error:
                self.failure = error
                raise
            if self._stopped:
                # Given up while the chunk was waited for: what is given out now would be the last.
                raise ConnectionAbortedError
            self._since = asyncio.get_running_loop().time()
            self.complete = self._held is None
            return chunk or b""

    def patience_seconds(self) -> float:
        """Return how much longer the server may keep us waiting; all of it while it need not."""
        if self._since is None:
            return self._seconds
        return self._seconds - (asyncio.get_running_loop().time() - self._since)

    def abandon(self) -> bool:
        """Give out nothing more; returns whether the last chunk was given out before."""
        self._stopped = True
        return self.complete

    async def stop(self) -> None:
        """Return when nobody reads the chunks any more."""
        self._stopped = True
        async with self._running:
            return

    async def _next(self) -> bytes | None:
        """Return the next chunk that is not empty; None when they ended at the right length."""
        async for chunk in self._chunks:
            self._taken += len(chunk)
            if self._taken > self._size_bytes:
                check_size(self._taken, self._size_bytes)
            if chunk:
                return chunk
        check_size(self._taken, self._size_bytes)
        return None
