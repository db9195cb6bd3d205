"""
The sandboxed child: reads a fax from its standard input, says what it is, and keeps nothing.

It may open no file and no connection, and use so much memory and time; it has no environment and
no keys. A TIFF is read here, in plain Python that nothing can overrun. A PDF is read by a
library in C++, so each one gets a process of its own, forked for it alone, that can open nothing
more of any kind: what takes that one over sees no other fax and has the pipe for its answer.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import BinaryIO

from vault.domain.fax_pdf import fax_pdf
from vault.domain.tiff_fax import read_pages
from vault.errors import ContentRefusedError
from vault.sandbox import frames
from vault.sandbox.confine import leave_capabilities, leave_outside
from vault.sandbox.pdf import count_pages

#: What the library's own files and threads need; no more can be opened.
DESCRIPTORS_MAX = 32
_NO_NEW_PRIVILEGES, _PARENT_DEATH_SIGNAL = 38, 1
_NEW_USERS, _NEW_NETWORK = 0x10000000, 0x40000000


def main() -> None:
    """Answer until the vault closes the pipe."""
    # Who starts a child under uvloop leaves it copies of the pipes, and what else it had open.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    memory_bytes, cpu_seconds = (int(text) for text in sys.argv[1:3])
    limit(memory_bytes)
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := questions.read(frames.QUESTION_BYTES):
        letter, pages_max, size = frames.parse_question_head(head)
        content = questions.read(size)
        if letter == frames.CHECK_PDF:
            _apart(answers, content, pages_max, cpu_seconds)
        else:
            _say(answers, answer(letter, content, pages_max))


def limit(memory_bytes: int) -> None:
    """Give up what is not needed; what the system does not let us give up is left."""
    os.chdir("/")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    # Without a network of its own where namespaces are allowed.
    if libc.unshare(_NEW_NETWORK) != 0:
        libc.unshare(_NEW_USERS | _NEW_NETWORK)
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
    ):
        resource.setrlimit(kind, (value, value))
    leave_outside(libc)
    leave_capabilities(libc)
    # Last, since the system forgets it when capabilities change.
    libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def limit_reader(cpu_seconds: int) -> None:
    """Give up, in a process forked for one PDF, all that the library does not need."""
    libc = ctypes.CDLL(None, use_errno=True)
    leave_outside(libc)
    # A fork does not inherit it.
    libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    for kind, soft, hard in (
        # The softer limit comes first, and by a signal that nobody else sends.
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        # No file, socket or pipe more, and, where this is not root, no process.
        (resource.RLIMIT_NOFILE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def answer(letter: bytes, content: bytes, pages_max: int) -> bytes:
    """Return the answer to one question; a refusal carries its reason."""
    try:
        if letter == frames.CHECK_PDF:
            return frames.answer(frames.DONE, frames.facts(count_pages(content, pages_max), None))
        pages = read_pages(content, pages_max)
        if letter == frames.CONVERT:
            return frames.answer(frames.DONE, fax_pdf(content, pages))
        return frames.answer(frames.DONE, frames.facts(len(pages), pages[0].receive_seconds))
    except ContentRefusedError as error:
        return frames.answer(frames.REFUSED, str(error).encode())
    except MemoryError:
        return frames.answer(frames.REFUSED, b"the fax needs more memory than a fax may")


def _apart(answers: BinaryIO, content: bytes, pages_max: int, cpu_seconds: int) -> None:
    """Answer from a process that ends with this question; one that met a limit is a refusal."""
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        _say(answers, frames.answer(frames.AWAY, b""))
        return
    if child == 0:
        # The pipes from and to the vault carry the other faxes.
        for descriptor in (reading, sys.stdin.fileno(), sys.stdout.fileno()):
            os.close(descriptor)
        limit_reader(cpu_seconds)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer(frames.CHECK_PDF, content, pages_max))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in frames.OUTSIDE:
        found = frames.answer(frames.AWAY, b"")
    elif status != 0 or not frames.is_whole(found):
        found = frames.answer(frames.REFUSED, b"the fax could not be read within the limits")
    _say(answers, found)


def _say(answers: BinaryIO, content: bytes) -> None:
    answers.write(content)
    answers.flush()


if __name__ == "__main__":
    main()
