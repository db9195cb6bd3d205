"""
Signed notes: a text and Ed25519 signatures under it (C2SP signed-note, RFC 8032).

The text ends in a newline; then an empty line, and one line per signature:
an em dash, the signer's name, and base64 of a 4-byte key hash and the signature.
"""

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keys.errors import IntegrityError, KeysError
from keys.private_file import is_private, write_private

ALGORITHM = b"\x01"
SEPARATOR = "\n\n"
_HASH_BYTES = 4


def key_hash(name: str, public_key: bytes) -> bytes:
    """Return the four bytes that name a key beside the signer's name."""
    return hashlib.sha256(name.encode() + b"\n" + ALGORITHM + public_key).digest()[:_HASH_BYTES]


def _is_name(name: str) -> bool:
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


class Signer:
    """A name and a private key; the key is never shown."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        if not _is_name(name):
            raise KeysError("a signer's name has no spaces and no plus sign")
        self.name, self._key = name, key
        self._public = key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Signer({self.name})"

    @property
    def vkey(self) -> str:
        """Return the verifier key: NAME+HASH+BASE64, for everybody."""
        digest = key_hash(self.name, self._public).hex()
        return f"{self.name}+{digest}+{base64.b64encode(ALGORITHM + self._public).decode()}"

    def sign(self, text: str) -> str:
        """Return the note of a text, which must end in a newline."""
        if not _is_text(text):
            raise KeysError("a note's text ends in a newline and has no control characters")
        signed = key_hash(self.name, self._public) + self._key.sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(signed).decode()}\n"


class Verifier:
    """A name and a public key, from a `vkey`."""

    def __init__(self, vkey: str) -> None:
        try:
            self.name, digest, encoded = vkey.strip().split("+", 2)
            key = base64.b64decode(encoded, validate=True)
            self._hash = bytes.fromhex(digest)
            self._key = Ed25519PublicKey.from_public_bytes(key[1:])
        except ValueError:
            raise IntegrityError from None
        if key[:1] != ALGORITHM or not _is_name(self.name):
            raise IntegrityError
        if self._hash != key_hash(self.name, key[1:]):
            raise IntegrityError

    def verify(self, note: str) -> str:
        """Return the text of a note that this key signed; raises `IntegrityError`."""
        text, found, signatures = note.rpartition(SEPARATOR)
        if not found or not signatures.endswith("\n"):
            raise IntegrityError
        text += "\n"
        if not _is_text(text):
            raise IntegrityError
        lines = [self._signature(line) for line in signatures.removesuffix("\n").split("\n")]
        mine = next((signature for signature in lines if signature is not None), None)
        if mine is None:
            raise IntegrityError
        try:
            self._key.verify(mine, text.encode())
        except InvalidSignature:
            raise IntegrityError from None
        return text

    def _signature(self, line: str) -> bytes | None:
        """Return the signature of a line that names this key, None where it names another."""
        try:
            dash, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise IntegrityError from None
        if dash != "—" or not _is_name(name) or len(raw) <= _HASH_BYTES:
            raise IntegrityError
        return raw[_HASH_BYTES:] if (name, raw[:_HASH_BYTES]) == (self.name, self._hash) else None


def load_or_create_signer(path: Path, name: str) -> Signer:
    """Read the signing key, or make it durably; of two starts at once, both get the first's."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        if not is_private(path.stat()):
            raise KeysError(f"{path} signs the log and others may read it: chmod 600 {path}")
        pem = path.read_bytes()
    except OSError as error:
        raise KeysError(
            f"the key that signs the log cannot be read or made: {path}: {error.strerror}"
        ) from None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysError(f"{path} is no Ed25519 key in PEM: put the right one back")
    return Signer(name, key)


def _create(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, pem, replace=False)
