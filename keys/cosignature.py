"""
Cosignatures: a witness says when it saw a checkpoint, and that it follows those it saw before.

C2SP tlog-cosignature, version 1 with Ed25519: what is signed is the time and the checkpoint's text,
and the signature is eight bytes of Unix time, big-endian, and 64 bytes of Ed25519.
"""

import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.errors import IntegrityError
from keys.note import Signer, parse_note, parse_vkey

COSIGNATURE = b"\x04"
_TIME = struct.Struct(">Q")


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


class Cosigner(Signer):
    """A witness; the key is never shown."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        super().__init__(name, key, COSIGNATURE)

    def cosign(self, text: str, time: int) -> str:
        """Return the line for a checkpoint's text that was seen at a Unix time."""
        return self.key.line(_TIME.pack(time) + self._sign(_message(text, time)))


class CosignatureVerifier:
    """Knows one witness, from its `vkey`."""

    def __init__(self, vkey: str) -> None:
        self.key = parse_vkey(vkey, COSIGNATURE)

    def verify(self, note: str) -> tuple[str, int]:
        """Return a checkpoint's text and when this witness saw it; raises `IntegrityError`."""
        parsed = parse_note(note)
        signature = parsed.of(self.key)
        if len(signature) != _TIME.size + 64:
            raise IntegrityError
        (time,) = _TIME.unpack_from(signature)
        self.key.check(signature[_TIME.size :], _message(parsed.text, time))
        return parsed.text, time
