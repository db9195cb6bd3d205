"""
Names a file's type by its first bytes: the signature table first, then libmagic in the sandbox.

The table compares constant bytes and parses nothing, so it is asked in this process and covers
every type that the vault takes. What it does not know goes to libmagic, which reads hostile bytes
in C and therefore runs in the sandboxed child only.
"""

import asyncio
import logging
import re

from vault.adapters.sandbox import SandboxedChildren
from vault.domain.documents import HEAD_BYTES, by_signature
from vault.errors import ContentRefusedError, UnavailableError

log = logging.getLogger(__name__)

UNKNOWN = "application/octet-stream"
TIMEOUT_SECONDS = 5.0
_PROBE, _PROBE_TYPE = b"GIF89a" + bytes(64), "image/gif"
#: RFC 6838, 4.2: the child may have been taken over, and what it says goes into answers.
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}", re.ASCII)
_HINTS = {
    "library": "libmagic cannot be loaded; install libmagic1 or the package pylibmagic",
    "database": "libmagic cannot use its database of types; install it again",
}


class MagicSniffer:
    """Signatures here, and libmagic in the sandbox's children."""

    def __init__(self, sandbox: SandboxedChildren) -> None:
        self._sandbox = sandbox

    async def sniff(self, head: bytes, *, sender: str = "") -> str:
        """
        Return the media type, `application/octet-stream` where nothing is known.

        No bytes make it raise. Without libmagic the signatures are all it knows. `sender` is whose
        turn it is in the sandbox, where the child is asked.
        """
        head = head[:HEAD_BYTES]
        if known := by_signature(head):
            return known
        try:
            return await self._within_time(head, sender)
        except UnavailableError as error:
            log.warning("%s", error)
            return UNKNOWN

    async def check(self) -> None:
        """Raise when libmagic cannot be used, with a message that says what to do."""
        if await self._within_time(_PROBE, "") != _PROBE_TYPE:
            raise UnavailableError("libmagic knows no types; install its database again")

    async def _within_time(self, head: bytes, sender: str) -> str:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                found = await self._sandbox.sniff(head, sender=sender)
        except TimeoutError:
            raise UnavailableError(
                f"libmagic does not answer within {TIMEOUT_SECONDS:g} seconds"
            ) from None
        except ContentRefusedError as error:
            # What a child that was taken over says instead goes no further.
            hint = _HINTS.get(str(error), "libmagic could not read a file within its limits")
            raise UnavailableError(hint) from None
        return found if _TYPE.fullmatch(found) else UNKNOWN
