"""
The sandboxed child: reads a file from its standard input, says what it is, and keeps nothing.

It may open no file and no connection, and use so much memory and time; it has no environment and
no keys. A TIFF is read here, in plain Python that nothing can overrun and whose work is bounded by
the file's size. All else, a PDF by a library in C++, a type by libmagic, a mail by a parser whose
work nobody has bounded, gets a process of its own, forked for it alone, that can open nothing more
of any kind and has so much processor time: what takes that one over sees nothing of others and has
the pipe for its answer.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

from vault.domain.tiff_fax import fax_pdf, read_pages
from vault.errors import ContentRefusedError, UnsupportedTypeError
from vault.sandbox import frames, libmagic
from vault.sandbox.confine import leave_capabilities, leave_outside
from vault.sandbox.mail import read_mail
from vault.sandbox.pdf import count_pages, disarmed

#: What is read in a process of its own.
_APART = frozenset({frames.CHECK_PDF, frames.DISARM, frames.SNIFF, frames.MAIL})
#: What the library's own files and threads need; no more can be opened.
DESCRIPTORS_MAX = 32
Naming = Callable[[bytes], str]
_NO_NEW_PRIVILEGES, _PARENT_DEATH_SIGNAL = 38, 1
_NEW_USERS, _NEW_NETWORK = 0x10000000, 0x40000000


def main() -> None:
    """Answer until the vault closes the pipe."""
    # Who starts a child under uvloop leaves it copies of the pipes, and what else it had open.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    memory_bytes, cpu_seconds = (int(text) for text in sys.argv[1:3])
    # Its library and its database are files, of which there are none from here on.
    naming = _naming()
    limit(memory_bytes)
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := questions.read(frames.QUESTION_BYTES):
        letter, most, size = frames.parse_question_head(head)
        content = questions.read(size)
        if letter in _APART:
            _apart(answers, (letter, content, most, naming), cpu_seconds)
        else:
            _say(answers, answer(letter, content, most))


def _naming() -> Naming:
    try:
        return libmagic.load()
    except libmagic.LibmagicError as error:
        reason = error.args[0]

        def cannot(head: bytes) -> str:
            del head
            raise libmagic.LibmagicError(reason)

        return cannot


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
    """Give up, in a process forked for one file, all that the library does not need."""
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


def answer(letter: bytes, content: bytes, most: int, naming: Naming | None = None) -> bytes:
    """Return the answer to one question; a refusal carries its reason."""
    try:
        return frames.answer(frames.DONE, _answer(letter, content, most, naming))
    except ContentRefusedError as error:
        return frames.answer(frames.REFUSED, str(error).encode())
    except UnsupportedTypeError as error:
        return frames.answer(frames.OTHER_TYPE, str(error).encode())
    except libmagic.LibmagicError as error:
        return frames.answer(frames.REFUSED, error.args[0])
    except MemoryError:
        return frames.answer(frames.REFUSED, b"the fax needs more memory than a fax may")


def _answer(letter: bytes, content: bytes, most: int, naming: Naming | None) -> bytes:
    if letter == frames.CHECK_PDF:
        return frames.facts(count_pages(content, most), None)
    if letter == frames.DISARM:
        return disarmed(content)
    if letter == frames.SNIFF and naming is not None:
        return naming(content).encode()
    if letter == frames.MAIL:
        return frames.parts(*read_mail(content, most))
    pages = read_pages(content, most)
    if letter == frames.CONVERT:
        return fax_pdf(content, pages)
    return frames.facts(len(pages), pages[0].receive_seconds)


def _apart(answers: BinaryIO, question: tuple[bytes, bytes, int, Naming], cpu_seconds: int) -> None:
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
            pipe.write(answer(*question))
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
