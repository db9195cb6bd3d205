"""Names a file's type by its first bytes: the signature table first, then libmagic."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vault.domain.documents import PNG
from vault.domain.media import HEAD_BYTES, by_signature
from vault.errors import UnavailableError

UNKNOWN = "application/octet-stream"
THREADS = 2
TIMEOUT_SECONDS = 5.0
_PROBE = b"GIF89a" + bytes(64)


class MagicSniffer:
    """libmagic in a few threads, each with a handle of its own, since a handle is not shared."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sniffer")
        self._local = threading.local()

    async def sniff(self, head: bytes) -> str:
        """Return the media type, `application/octet-stream` where nothing is known."""
        head = head[:HEAD_BYTES]
        known = by_signature(head)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await loop.run_in_executor(self._threads, self._ask, head)
        except TimeoutError:
            return UNKNOWN

    async def check(self) -> None:
        """Raise when libmagic cannot be used."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._ask, _PROBE)
        except (ImportError, OSError) as error:
            raise UnavailableError(
                "libmagic cannot be loaded; install libmagic1 or the package pylibmagic"
            ) from error
        if found in (UNKNOWN, PNG):
            raise UnavailableError("libmagic has no database of types; reinstall libmagic1")

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, head: bytes) -> str:
        answer: str = self._magic().from_buffer(head)
        return answer or UNKNOWN

    def _magic(self) -> Any:
        if not hasattr(self._local, "magic"):
            self._local.magic = _load().Magic(mime=True)
        return self._local.magic


def _load() -> Any:
    """Return python-magic on the system's libmagic, or else on the one that pylibmagic carries."""
    try:
        import magic
    except ImportError:
        # Only now: it also points MAGIC at its own database, which another libmagic refuses.
        import magic
        import pylibmagic  # noqa: F401
    return magic
