"""
What goes out: the one way in which content, faxes and exports leave as a stream.

An `Outgoing` is made of an access that is watched while it flows (`vault/streams.py`), and every
entrance hands out nothing else as a stream, so that no stream can be forgotten.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from keys.errors import IntegrityError
from keys.stream import DataKey
from vault.actions.access import Access


class Outgoing:
    """Pieces on their way out: counted, and each one asked for anew before it goes."""

    def __init__(self, access: Access, pieces: AsyncIterator[bytes]) -> None:
        if access.stream is None:
            raise TypeError(f"{access.intent.action} is not among the streams that are watched")
        access.size_bytes = 0
        self._pieces = _counted(access, pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        """Let go of what the pieces come from."""
        await self._pieces.aclose()


async def _counted(access: Access, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        await access.renew()
        yield piece
        access.size_bytes = (access.size_bytes or 0) + len(piece)


async def decrypted(
    key: DataKey, context: bytes, sealed: AsyncIterator[bytes], size_bytes: int | None
) -> AsyncIterator[bytes]:
    """
    Yield a stream decrypted, as its chunks verify.

    Raises `IntegrityError` instead of ending when the stream is cut, altered or not `size_bytes`.
    """
    decryptor, size = key.decryptor(context), 0
    async for chunk in sealed:
        if opened := decryptor.update(chunk):
            size += len(opened)
            yield opened
    last = decryptor.finalize()
    if size + len(last) != size_bytes:
        raise IntegrityError
    if last:
        yield last
