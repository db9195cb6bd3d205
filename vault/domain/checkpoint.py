"""Checkpoints: the text that states a log's size and root (C2SP tlog-checkpoint)."""

import base64
import binascii
from dataclasses import dataclass

from vault.domain.merkle import HASH_BYTES


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
    if rest or len(root) != HASH_BYTES or encode(checkpoint) != text:
        raise ValueError("not a checkpoint")
    return checkpoint
