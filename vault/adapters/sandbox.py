"""
The sandbox: child processes with limits that look into what strangers send.

Content goes in and out by pipes and is never a file. A child that outlasts its time, or dies, is
killed and another takes its place; a fax that did that to two of them is refused. What the machine
did to a child, when it was short of memory for one, is not said of the fax: it may come again.
Senders share the children fairly (`fair_places`): who sends what takes long delays the others by
the question that is being answered, and no more.
"""

import asyncio
import contextlib
import os
import sys
from contextlib import AsyncExitStack

from vault.adapters.fair_places import FairPlaces
from vault.domain.documents import TIFF
from vault.domain.faxes import Checked, Mail
from vault.errors import ContentRefusedError, UnavailableError, UnsupportedTypeError
from vault.sandbox import frames

TRIES = 2
#: What a child may answer: a fax as PDF is little larger than the fax.
ANSWER_BYTES_MAX = 256 * 1024 * 1024
REASON_BYTES_MAX = 1000
UNREADABLE = "the fax could not be read within the limits"


class SandboxedChildren:
    """So many children at most, started when they are first needed."""

    def __init__(self, *, processes: int, timeout_seconds: float, memory_bytes: int) -> None:
        self._timeout_seconds, self._memory_bytes = timeout_seconds, memory_bytes
        self._processes, self._places = processes, FairPlaces(processes)
        #: Those that nobody asks now, the one that was asked last at the end; None is not started.
        self._idle: list[asyncio.subprocess.Process | None] = [None] * processes
        # Opened now, so that no file is when the first fax comes.
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    async def check(
        self, data: bytes, media_type: str, *, pages_max: int, sender: str = ""
    ) -> Checked:
        """Return what the fax is; raises `ContentRefusedError` with the reason."""
        letter = frames.CHECK_TIFF if media_type == TIFF else frames.CHECK_PDF
        answer = await self._ask(letter, data, pages_max, sender)
        try:
            checked = Checked(*frames.parse_facts(answer))
        except ValueError:
            raise ContentRefusedError(UNREADABLE) from None
        # Whoever took the child over may have it say anything.
        if not 1 <= checked.pages <= pages_max:
            raise ContentRefusedError(UNREADABLE)
        return checked

    async def convert(
        self, data: bytes, media_type: str, *, pages_max: int, sender: str = ""
    ) -> bytes:
        """
        Return a fax as a PDF that only draws.

        A TIFF-F becomes one without loss; of a PDF what it draws is left, and no action, script,
        link, form or file.
        """
        letter = frames.CONVERT if media_type == TIFF else frames.DISARM
        return await self._ask(letter, data, pages_max, sender)

    async def sniff(self, head: bytes, *, sender: str = "") -> str:
        """Return what libmagic calls a file by its first bytes; the reason when it cannot."""
        return (await self._ask(frames.SNIFF, head, 1, sender)).decode("ascii", "replace")

    async def read_mail(self, mail: bytes, *, attachments_max: int, sender: str = "") -> Mail:
        """Return the faxes in a mail; raises `ContentRefusedError` or `UnsupportedTypeError`."""
        answer = await self._ask(frames.MAIL, mail, attachments_max, sender)
        try:
            name, faxes = frames.parse_parts(answer)
        except ValueError:
            raise ContentRefusedError(UNREADABLE) from None
        # Whoever took the child over may have it say anything.
        if not 1 <= len(faxes) <= attachments_max or len(answer) > 2 * len(mail):
            raise ContentRefusedError(UNREADABLE)
        return Mail(name.decode("utf-8", "replace") or None, tuple(faxes))

    async def close(self) -> None:
        """End all children, those that are being asked when they have answered."""
        async with AsyncExitStack() as stack:
            for number in range(self._processes):
                await stack.enter_async_context(self._places.taken(f"close {number}"))
                await _end(self._idle.pop(0))
        os.close(self._nowhere)

    async def _ask(self, letter: bytes, data: bytes, most: int, sender: str) -> bytes:
        away = False
        for _ in range(TRIES):
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with self._places.taken(sender):
                    found, content = await self._ask_one(letter, data, most)
                if found == frames.REFUSED:
                    raise ContentRefusedError(_reason(content))
                if found == frames.OTHER_TYPE:
                    raise UnsupportedTypeError(_reason(content))
                if found == frames.DONE:
                    return content
                away = True
        if away:
            raise UnavailableError("the fax cannot be looked into now; send it again")
        raise ContentRefusedError(UNREADABLE)

    async def _ask_one(self, letter: bytes, data: bytes, most: int) -> tuple[bytes, bytes]:
        child = self._idle.pop()
        whole = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if child is None or child.returncode is not None:
                    child = await self._start()
                if child.stdin is None or child.stdout is None:
                    raise UnavailableError
                # At once: what is written in two wakes the child twice.
                _write(child.stdin, frames.question_head(letter, most, len(data)), data)
                await child.stdin.drain()
                head = await child.stdout.readexactly(frames.ANSWER_BYTES)
                found, size = frames.parse_answer_head(head)
                if size > ANSWER_BYTES_MAX:
                    raise OSError("the child answers too much")
                content = await child.stdout.readexactly(size)
                whole = True
                return found, content
        except (asyncio.IncompleteReadError, ConnectionError):
            await asyncio.shield(_end(child))
            # One that had ended before keeps the status that it ended with.
            if child is not None and -(child.returncode or 0) in frames.OUTSIDE:
                return frames.AWAY, b""
            raise
        finally:
            # A child that was left in the middle of an answer would give it to the next one. Its
            # place is given back even where waiting for its end is cancelled, too.
            try:
                if not whole:
                    await asyncio.shield(_end(child))
            finally:
                self._idle.append(child if whole else None)

    async def _start(self) -> asyncio.subprocess.Process:
        cpu_seconds = str(max(1, int(self._timeout_seconds)))
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "vault.sandbox.child"),
                *(str(self._memory_bytes), cpu_seconds),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._nowhere,
                env={},
                # A signal to the terminal's group is for the vault to answer.
                start_new_session=True,
            )
        except OSError as error:
            raise UnavailableError(f"no sandbox can be started: {error.strerror}") from None


def _reason(content: bytes) -> str:
    """Return a refusal's reason in one line, whatever the child made of it."""
    text = content[:REASON_BYTES_MAX].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _write(pipe: asyncio.StreamWriter, *parts: bytes) -> None:
    try:
        pipe.writelines(parts)
    except RuntimeError:
        # What uvloop says of a pipe whose other end is gone.
        raise BrokenPipeError from None


async def _end(child: asyncio.subprocess.Process | None) -> None:
    if child is None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()
