"""
A document's own key: encrypts its byte stream and its metadata.

The stream is Cobblestone-256 from `cryptography`, an implementation of the C2SP chunked-encryption
format: 16 KiB chunks, bound to a context, committed to its key, truncation detected. There is no
cipher of our own here.
"""

import hmac

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from keys.errors import IntegrityError
from keys.wrap import KEY_BYTES, decrypt, derive, encrypt

#: Encrypts a stream as it comes; `update` and `finalize` return ciphertext.
Encryptor = Cobblestone256Encryptor

HEADER_BYTES = 56
CHUNK_BYTES = 16 * 1024
TAG_BYTES = 16


def ciphertext_size(plaintext_bytes: int) -> int:
    """Return the size of the stream; a whole last chunk is followed by an empty one."""
    return HEADER_BYTES + plaintext_bytes + TAG_BYTES * (plaintext_bytes // CHUNK_BYTES + 1)


class Decryptor:
    """Decrypts a stream as it comes; nothing is handed out before its chunk has verified."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._stream = Cobblestone256Decryptor(key, context)

    def update(self, encrypted: bytes) -> bytes:
        """Return what can be trusted by now; raises `IntegrityError`."""
        try:
            return self._stream.update(encrypted)
        except (InvalidTag, ValueError):
            raise IntegrityError from None

    def finalize(self) -> bytes:
        """Return the rest; raises `IntegrityError` when the stream was cut."""
        try:
            return self._stream.finalize()
        except (InvalidTag, ValueError):
            raise IntegrityError from None


class DataKey:
    """The key of one thing. Its bytes are never shown."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise IntegrityError
        self._key = key

    def __repr__(self) -> str:
        return "DataKey(***)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled")

    def encryptor(self, context: bytes) -> Encryptor:
        """Begin the one stream of this key; `update` and `finalize` return ciphertext."""
        return Cobblestone256Encryptor(derive(self._key, "content"), context)

    def decryptor(self, context: bytes) -> Decryptor:
        """Begin reading the stream."""
        return Decryptor(derive(self._key, "content"), context)

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt a small blob of metadata."""
        return encrypt(derive(self._key, "metadata"), plaintext, context)

    def decrypt(self, encrypted: bytes, context: bytes) -> bytes:
        """Return the metadata that `encrypt` was given; raises `IntegrityError`."""
        return decrypt(derive(self._key, "metadata"), encrypted, context)

    def mac(self, message: bytes, purpose: str) -> bytes:
        """Return the HMAC-SHA-256 of a message, under a key for this purpose alone."""
        return hmac.digest(derive(self._key, purpose), message, "sha256")

    def begin_mac(self, purpose: str) -> hmac.HMAC:
        """Begin the same over a message that comes in pieces."""
        return hmac.new(derive(self._key, purpose), digestmod="sha256")

    def reveal(self) -> bytes:
        """Return the bytes, for the keyring to wrap; nobody else calls this."""
        return self._key
