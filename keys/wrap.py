"""
Wrap and unwrap keys, each bound to everything that must not be swapped.

All associated data of the key tree is made here and nowhere else; change it and old trees no longer
open. The formats stand in docs/formats.md, the vectors in tests/vectors.
"""

import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keys.errors import IntegrityError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SLOTS = 60
PAGE_BYTES = SLOTS * KEY_BYTES
VERSION = b"\x01"
EMPTY = bytes(KEY_BYTES)


def new_key() -> bytes:
    """Return 32 random bytes."""
    return os.urandom(KEY_BYTES)


def derive(key: bytes, purpose: str) -> bytes:
    """Return the key for one purpose, so that no key is used for two (RFC 5869, expand)."""
    info = f"portvault/derive/v1/{purpose}".encode()
    return HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=info).derive(key)


def root_context(region: str, generation: int) -> bytes:
    """Bind a tree's root key to its region and generation."""
    return f"portvault/root-key/v1/{region}/{generation}".encode()


def page_context(region: str, node: int, epoch: int) -> bytes:
    """Bind a page to its node and the node's epoch; the parent is bound by holding its key."""
    return f"portvault/page/v1/{region}/{node}/{epoch}".encode()


def data_key_context(region: str, scope: UUID, epoch: int, identity: UUID) -> bytes:
    """Bind a data key to its scope, the scope's epoch, and whose key it is."""
    return f"portvault/data-key/v1/{region}/{scope}/{epoch}/{identity}".encode()


def encrypt(key: bytes, plaintext: bytes, context: bytes, nonce: bytes | None = None) -> bytes:
    """Return version, nonce, ciphertext and tag (AES-256-GCM, SP 800-38D)."""
    nonce = nonce or os.urandom(NONCE_BYTES)
    return VERSION + nonce + AESGCM(key).encrypt(nonce, plaintext, VERSION + context)


def decrypt(key: bytes, encrypted: bytes, context: bytes) -> bytes:
    """Return the plaintext that `encrypt` was given; raises `IntegrityError` for anything else."""
    if encrypted[:1] != VERSION or len(encrypted) < 1 + NONCE_BYTES + TAG_BYTES:
        raise IntegrityError
    nonce, body = encrypted[1 : 1 + NONCE_BYTES], encrypted[1 + NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, body, VERSION + context)
    except InvalidTag:
        raise IntegrityError from None


def wrap(parent: bytes, child: bytes, context: bytes, nonce: bytes | None = None) -> bytes:
    """Encrypt a 32-byte key under its parent; raises `IntegrityError` for another length."""
    if len(child) != KEY_BYTES:
        raise IntegrityError
    return encrypt(parent, child, context, nonce)


def unwrap(parent: bytes, wrapped: bytes, context: bytes) -> bytes:
    """Return the key that `wrap` was given; raises `IntegrityError` for anything else."""
    child = decrypt(parent, wrapped, context)
    if len(child) != KEY_BYTES:
        raise IntegrityError
    return child


def encrypt_page(
    key: bytes, page: bytes | bytearray, context: bytes, nonce: bytes | None = None
) -> bytes:
    """Encrypt a node's page of `SLOTS` child keys as one blob; empty slots are zero."""
    if len(page) != PAGE_BYTES:
        raise IntegrityError
    return encrypt(key, bytes(page), context, nonce)


def decrypt_page(key: bytes, encrypted: bytes, context: bytes) -> bytearray:
    """Return the page that `encrypt_page` was given; raises `IntegrityError`."""
    page = decrypt(key, encrypted, context)
    if len(page) != PAGE_BYTES:
        raise IntegrityError
    return bytearray(page)


def child_key(page: bytes | bytearray, slot: int) -> bytes:
    """Return the key in a slot; raises `IntegrityError` when the slot is empty."""
    key = bytes(page[slot * KEY_BYTES : (slot + 1) * KEY_BYTES])
    if len(key) != KEY_BYTES or key == EMPTY:
        raise IntegrityError
    return key


def set_child_key(page: bytearray, slot: int, key: bytes) -> None:
    """Put a key into a slot; `EMPTY` clears it."""
    page[slot * KEY_BYTES : (slot + 1) * KEY_BYTES] = key
