"""Checkpoints: a log's size and root as a text (C2SP tlog-checkpoint), signed as a note."""

import base64
import binascii
from dataclasses import dataclass
from typing import Protocol

from keys.errors import IntegrityError
from vault.domain.merkle import HASH_BYTES

#: Behind the name of a log whose first records were trimmed.
_MINIMUM = "#minimum"


class Opener(Protocol):
    """Knows whose signatures count."""

    def verify(self, note: str) -> str:
        """Return the text of a note; raises `IntegrityError`."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's name, how many records it holds, and the root over them."""

    origin: str
    size: int
    root: bytes


def origin(region: str) -> str:
    """Return the name of a region's log."""
    return f"portvault/{region}"


def encode(checkpoint: Checkpoint) -> str:
    """Return the text to sign."""
    root = base64.b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def decode(text: str) -> Checkpoint:
    """Return what `encode` was given; raises ValueError for any other text."""
    try:
        name, size, encoded, rest = text.split("\n")
        root = base64.b64decode(encoded, validate=True)
        checkpoint = Checkpoint(name, int(size), root)
    except (ValueError, binascii.Error) as error:
        raise ValueError("not a checkpoint") from error
    if not name or checkpoint.size < 0 or len(root) != HASH_BYTES:
        raise ValueError("not a checkpoint")
    if rest or encode(checkpoint) != text:
        raise ValueError("not a checkpoint")
    return checkpoint


def minimum(checkpoint: Checkpoint) -> Checkpoint:
    """Return the statement that records below this size were trimmed: under a name of its own."""
    return Checkpoint(checkpoint.origin + _MINIMUM, checkpoint.size, checkpoint.root)


def open_checkpoint(note: str, opener: Opener, region: str) -> Checkpoint:
    """Return a signed checkpoint of this region's log; any other note is an `IntegrityError`."""
    return _open(note, opener, origin(region))


def open_minimum(note: str, opener: Opener, region: str) -> Checkpoint:
    """Return the signed statement of how far the log was trimmed, in the same way."""
    return _open(note, opener, origin(region) + _MINIMUM)


def _open(note: str, opener: Opener, name: str) -> Checkpoint:
    try:
        checkpoint = decode(opener.verify(note))
    except ValueError:
        raise IntegrityError("the note is not a checkpoint") from None
    if checkpoint.origin != name:
        raise IntegrityError("the checkpoint is of another log")
    return checkpoint
