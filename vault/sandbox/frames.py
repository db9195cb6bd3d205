"""
What the vault and its sandboxed child say to each other over a pipe.

A question is `letter (1) | limit (4) | length (4) | content`, where the limit is that of pages or,
of a mail, of attachments; an answer is `letter (1) | length (4) | content`. What a fax is found to
be is `pages (4) | seconds are known (1) | seconds (4)`, what is in a mail `length (4) | content`
for its name and then for each fax. Integers are big-endian.
"""

import signal
import struct
from collections.abc import Sequence

CHECK_TIFF, CHECK_PDF, CONVERT = b"T", b"P", b"C"
#: Make a PDF one that only draws; name a type; take a mail apart.
DISARM, SNIFF, MAIL = b"W", b"S", b"M"
DONE, REFUSED = b"D", b"R"
#: Refused because something is of a type that is not taken.
OTHER_TYPE = b"O"
#: The machine had no room for it, or ended it: nothing is said about the content.
AWAY = b"A"
#: What ends a process from outside: a machine short of memory, an operator. A limit of its own or a
#: fault of the library's ends it otherwise.
OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_QUESTION, _ANSWER, _FACTS = struct.Struct(">cII"), struct.Struct(">cI"), struct.Struct(">I?I")
_PART = struct.Struct(">I")
QUESTION_BYTES, ANSWER_BYTES = _QUESTION.size, _ANSWER.size


def question_head(letter: bytes, limit: int, size: int) -> bytes:
    """Return what stands before a question's content."""
    return _QUESTION.pack(letter, limit, size)


def parse_question_head(head: bytes) -> tuple[bytes, int, int]:
    """Return what `question_head` was given."""
    letter, limit, size = _QUESTION.unpack(head)
    return letter, limit, size


def answer(letter: bytes, content: bytes) -> bytes:
    """Return a whole answer."""
    return _ANSWER.pack(letter, len(content)) + content


def parse_answer_head(head: bytes) -> tuple[bytes, int]:
    """Return the letter and the size of an answer."""
    letter, size = _ANSWER.unpack(head)
    return letter, size


def is_whole(found: bytes) -> bool:
    """Whether this is one answer about the content, and nothing after it."""
    if len(found) < ANSWER_BYTES:
        return False
    letter, size = parse_answer_head(found[:ANSWER_BYTES])
    return letter in {DONE, REFUSED, OTHER_TYPE} and size == len(found) - ANSWER_BYTES


def facts(pages: int, seconds: int | None) -> bytes:
    """Return what a fax was found to be."""
    return _FACTS.pack(pages, seconds is not None, seconds or 0)


def parse_facts(content: bytes) -> tuple[int, int | None]:
    """Return pages and seconds; raises `ValueError` for what is not of the size of `facts`."""
    try:
        pages, known, seconds = _FACTS.unpack(content)
    except struct.error:
        raise ValueError from None
    return pages, seconds if known else None


def parts(name: bytes, faxes: Sequence[bytes]) -> bytes:
    """Return what was found in a mail."""
    return b"".join(_PART.pack(len(part)) + part for part in (name, *faxes))


def parse_parts(content: bytes) -> tuple[bytes, list[bytes]]:
    """Return what `parts` was given; raises `ValueError` for what it never returns."""
    found, at = list[bytes](), 0
    while at < len(content):
        if len(content) - at < _PART.size:
            raise ValueError
        (size,) = _PART.unpack_from(content, at)
        at += _PART.size
        if size > len(content) - at:
            raise ValueError
        found.append(content[at : at + size])
        at += size
    if not found:
        raise ValueError
    return found[0], found[1:]
