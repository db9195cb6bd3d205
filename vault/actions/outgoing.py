"""
What goes out: the one way in which content, faxes and exports leave as a stream.

An `Outgoing` is made of an access that is watched while it flows (`vault/streams.py`), and every
entrance hands out nothing else as a stream, so that no stream can be forgotten.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from vault.actions.access import Access


class Outgoing:
    """Pieces on their way out: counted, and each one asked for anew before it goes."""

    def __init__(self, access: Access, pieces: AsyncIterator[bytes]) -> None:
        if access.stream is None:
            raise TypeError(f"{access.intent.action} is not among the streams that are watched")
        access.size_bytes = 0
        self._access, self._pieces = access, _counted(access, pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def whole(self) -> bytes:
        """Return all of it, verified to its end; where that fails, nothing has gone out."""
        try:
            return b"".join([piece async for piece in self._pieces])
        except BaseException:
            self._access.size_bytes = 0
            raise

    async def aclose(self) -> None:
        """Let go of what the pieces come from."""
        await self._pieces.aclose()


async def _counted(access: Access, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        await access.renew()
        yield piece
        access.size_bytes = (access.size_bytes or 0) + len(piece)
