"""
Signed notes: a text and Ed25519 signatures under it (C2SP signed-note, RFC 8032).

The text ends in a newline; then an empty line, and one line per signature:
an em dash, the signer's name, and base64 of a 4-byte key hash and the signature.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keys.errors import IntegrityError, KeysError

ED25519 = b"\x01"
SEPARATOR = "\n\n"
_HASH_BYTES = 4


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A signer's name and public key, as a `vkey` gives them: NAME+HASH+BASE64."""

    name: str
    algorithm: bytes
    public: bytes

    @property
    def hash(self) -> bytes:
        """The four bytes that name the key beside the signer's name."""
        text = self.name.encode() + b"\n" + self.algorithm + self.public
        return hashlib.sha256(text).digest()[:_HASH_BYTES]

    def __str__(self) -> str:
        encoded = base64.b64encode(self.algorithm + self.public).decode()
        return f"{self.name}+{self.hash.hex()}+{encoded}"

    def line(self, signature: bytes) -> str:
        """Return the line of a signature by this key."""
        return f"— {self.name} {base64.b64encode(self.hash + signature).decode()}\n"

    def check(self, signature: bytes, message: bytes) -> None:
        """Raise `IntegrityError` unless this key signed the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise IntegrityError from None


def parse_vkey(vkey: str, algorithm: bytes) -> NoteKey:
    """Return the key that a `vkey` names; raises `IntegrityError` for another algorithm's."""
    try:
        name, digest, encoded = vkey.strip().split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        Ed25519PublicKey.from_public_bytes(key[1:])
        found = NoteKey(name, key[:1], key[1:])
        right = bytes.fromhex(digest) == found.hash
    except ValueError:
        raise IntegrityError from None
    if found.algorithm != algorithm or not is_name(name) or not right:
        raise IntegrityError
    return found


def is_name(name: str) -> bool:
    """Whether a signer may have this name."""
    return bool(name) and "+" not in name and not any(mark.isspace() for mark in name)


def _is_text(text: str) -> bool:
    """Whether it ends in a newline and is UTF-8 without other control characters."""
    if not text.endswith("\n") or any(ord(mark) < 32 and mark != "\n" for mark in text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Note:
    """A note's text, and its signatures by the names and key hashes they claim."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def of(self, key: NoteKey) -> bytes:
        """Return what this key is said to have signed it with; raises `IntegrityError`."""
        for name, digest, signature in self.signatures:
            if (name, digest) == (key.name, key.hash):
                return signature
        raise IntegrityError


def parse_note(note: str) -> Note:
    """Take a note apart, and verify nothing; raises `IntegrityError` when it is none."""
    text, found, rest = note.rpartition(SEPARATOR)
    text += "\n"
    if not found or not rest.endswith("\n") or not _is_text(text):
        raise IntegrityError
    return Note(text, tuple(map(_signature, rest.removesuffix("\n").split("\n"))))


def _signature(line: str) -> tuple[str, bytes, bytes]:
    try:
        dash, name, encoded = line.split(" ")
        raw = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise IntegrityError from None
    if dash != "—" or not is_name(name) or len(raw) <= _HASH_BYTES:
        raise IntegrityError
    return name, raw[:_HASH_BYTES], raw[_HASH_BYTES:]


class Signer:
    """A name and a private key; the key is never shown."""

    def __init__(self, name: str, key: Ed25519PrivateKey, algorithm: bytes = ED25519) -> None:
        if not is_name(name):
            raise KeysError("a signer's name has no spaces and no plus sign")
        self._private = key
        self.key = NoteKey(name, algorithm, key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key.name})"

    @property
    def vkey(self) -> str:
        """Return the verifier key, for everybody."""
        return str(self.key)

    def line(self, text: str) -> str:
        """Return the line that signs a text, which must end in a newline."""
        if not _is_text(text):
            raise KeysError("a note's text ends in a newline and has no control characters")
        return self.key.line(self._sign(text.encode()))

    def sign(self, text: str) -> str:
        """Return the note of a text with this signature alone."""
        return f"{text}\n{self.line(text)}"

    def _sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def derived(self, purpose: str) -> bytes:
        """Return 32 secret bytes that whoever has this key gets for a purpose, and nobody else."""
        kdf = HKDF(hashes.SHA256(), 32, salt=None, info=f"portvault/1/{purpose}".encode())
        return kdf.derive(self._private.private_bytes_raw())


class Verifier:
    """Knows one public key, from a `vkey`."""

    def __init__(self, vkey: str) -> None:
        self.key = parse_vkey(vkey, ED25519)

    def verify(self, note: str) -> str:
        """Return the text of a note that this key signed; raises `IntegrityError`."""
        parsed = parse_note(note)
        self.key.check(parsed.of(self.key), parsed.text.encode())
        return parsed.text


class AnyVerifier:
    """Knows several public keys, and is content with one of them."""

    def __init__(self, vkeys: Iterable[str]) -> None:
        self._verifiers = [Verifier(vkey) for vkey in vkeys]

    def verify(self, note: str) -> str:
        """Return the text of a note that one of the keys signed; raises `IntegrityError`."""
        for verifier in self._verifiers:
            try:
                return verifier.verify(note)
            except IntegrityError:
                continue
        raise IntegrityError


# ---- Cosignatures: a witness says when it saw a checkpoint, and that it follows those it saw
# before.
#
# C2SP tlog-cosignature, version 1 with Ed25519: what is signed is the time and the checkpoint's
# text, and the signature is eight bytes of Unix time, big-endian, and 64 bytes of Ed25519.

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
