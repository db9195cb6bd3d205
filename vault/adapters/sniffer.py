"""Names a file's type by its first bytes: the signature table first, then libmagic."""

import asyncio
import importlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vault.domain.media import HEAD_BYTES, by_signature
from vault.errors import UnavailableError

log = logging.getLogger(__name__)

UNKNOWN = "application/octet-stream"
THREADS = 2
TIMEOUT_SECONDS = 5.0
_PROBE, _PROBE_TYPE = b"GIF89a" + bytes(64), "image/gif"


class MagicSniffer:
    """libmagic in a few threads, each with a handle of its own, since a handle is not shared."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sniffer")
        self._local = threading.local()

    async def sniff(self, head: bytes) -> str:
        """
        Return the media type, `application/octet-stream` where nothing is known.

        No bytes make it raise. Without libmagic the signatures are all it knows, and those cover
        every type that the vault takes.
        """
        head = head[:HEAD_BYTES]
        if known := by_signature(head):
            return known
        try:
            return await self._within_time(head)
        except UnavailableError as error:
            log.warning("%s", error)
            return UNKNOWN

    async def check(self) -> None:
        """Raise when libmagic cannot be used, with a message that says what to do."""
        if await self._within_time(_PROBE) != _PROBE_TYPE:
            raise UnavailableError("libmagic knows no types; install its database again")

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _within_time(self, head: bytes) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await loop.run_in_executor(self._threads, self._ask, head)
        except TimeoutError:
            raise UnavailableError(
                f"libmagic does not answer within {TIMEOUT_SECONDS:g} seconds; restart the vault"
            ) from None

    def _ask(self, head: bytes) -> str:
        try:
            magic = _load()
        except (ImportError, OSError) as error:
            raise UnavailableError(
                "libmagic cannot be loaded; install libmagic1 or the package pylibmagic"
            ) from error
        try:
            if not hasattr(self._local, "handle"):
                self._local.handle = magic.Magic(mime=True)
            return str(self._local.handle.from_buffer(head)) or UNKNOWN
        except magic.MagicException as error:
            raise UnavailableError(
                "libmagic cannot use its database of types; install it again, and unset MAGIC"
            ) from error


def _load() -> Any:
    """Return python-magic on the system's libmagic, or else on the one that pylibmagic carries."""
    try:
        return importlib.import_module("magic")
    except ImportError:
        # In this order, which `import` statements that are sorted would not keep. And only now: it
        # also points MAGIC at its own database, which another libmagic refuses.
        importlib.import_module("pylibmagic")
        return importlib.import_module("magic")
