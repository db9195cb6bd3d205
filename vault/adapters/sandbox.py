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
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from vault.domain.documents import HEAD_BYTES, TIFF, by_signature
from vault.domain.faxes import Checked, Mail
from vault.errors import ContentRefusedError, UnavailableError, UnsupportedTypeError
from vault.sandbox import frames

# ---- Places that are shared fairly: whoever has used least of them is next. ---------------------
#
# What a sender has used is the time for which it held places. So one that asks slow questions, or
# many, waits behind all others until they have used as much; one who comes anew begins at what the
# others have used by then, and cannot save up time. A place that is taken is not taken away again:
# therefore a sender whose questions are slow never holds the last place, where there are several.

#: A sender whose last question took longer leaves one place to the others.
SLOW_SECONDS = 0.25
#: Of those who want nothing now so many are remembered; who has used least is forgotten first.
REMEMBERED_MAX = 1000


@dataclass(slots=True)
class _Sender:
    """How long a sender held places, in seconds, when those began that it has, and who waits."""

    used: float
    begun: list[float] = field(default_factory=list)
    waiting: deque[asyncio.Future[float]] = field(default_factory=deque)
    last: float = 0.0

    def used_by(self, now: float) -> float:
        """Return the seconds that it has used, those of the places that it has now among them."""
        return self.used + sum(now - at for at in self.begun)

    def is_slow(self, now: float) -> bool:
        """Whether its last question, or one that is being answered, takes long."""
        return self.last > SLOW_SECONDS or any(now - at > SLOW_SECONDS for at in self.begun)


class FairPlaces:
    """So many places; who waits for one longest gets none before who has used less."""

    def __init__(self, places: int) -> None:
        self._places, self._free = places, places
        self._senders: dict[str, _Sender] = {}
        #: What the sender that was served last had used: where who comes anew begins.
        self._floor = 0.0

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return self._free

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[None]:
        """Hold a place within the block, after waiting for the sender's turn."""
        sender = self._senders.get(name)
        if sender is None:
            sender = self._senders[name] = _Sender(self._floor)
        elif not sender.begun and not sender.waiting:
            sender.used = max(sender.used, self._floor)
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        sender.waiting.append(turn)
        self._serve()
        try:
            began = await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # Its turn had come, and is another's now.
                self._give_back(name, sender, turn.result())
            else:
                with suppress(ValueError):
                    sender.waiting.remove(turn)
                self._forget(name, sender)
            raise
        try:
            yield
        finally:
            self._give_back(name, sender, began)

    def _give_back(self, name: str, sender: _Sender, began: float) -> None:
        sender.begun.remove(began)
        sender.last = time.monotonic() - began
        sender.used += sender.last
        self._free += 1
        self._serve()
        self._forget(name, sender)

    def _serve(self) -> None:
        """Give free places to those whose turn it is."""
        now = time.monotonic()
        while self._free:
            among = [s for s in self._senders.values() if s.waiting and self._may(s, now)]
            if not among:
                return
            sender = min(among, key=lambda one: one.used_by(now))
            turn = sender.waiting.popleft()
            if turn.done():
                continue
            self._floor = max(self._floor, sender.used)
            self._free -= 1
            sender.begun.append(now)
            turn.set_result(now)

    def _may(self, sender: _Sender, now: float) -> bool:
        # The last place is for those who give it back soon.
        return self._free > 1 or not sender.begun or not sender.is_slow(now)

    def _forget(self, name: str, sender: _Sender) -> None:
        """Keep of those who want nothing only what they have used beyond the others; bounded."""
        if not sender.begun and not sender.waiting and sender.used <= self._floor:
            self._senders.pop(name, None)
        if len(self._senders) <= REMEMBERED_MAX:
            return
        resting = [n for n, one in self._senders.items() if not one.begun and not one.waiting]
        if len(resting) > REMEMBERED_MAX:
            least = self._senders.pop(min(resting, key=lambda n: self._senders[n].used))
            # Who is forgotten would begin there, and so does everybody else.
            self._floor = max(self._floor, least.used)


# ---- Sandbox. -----------------------------------------------------------------------------------

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


# ---- Names a file's type by its first bytes: the signature table first, then libmagic in the
# sandbox.
#
# The table compares constant bytes and parses nothing, so it is asked in this process and covers
# every type that the vault takes. What it does not know goes to libmagic, which reads hostile
# bytes in C and therefore runs in the sandboxed child only.

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
