"""Wrapped keys and pages against vectors that are made again here from docs/formats.md alone."""

import hmac
import json
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys import wrap
from keys.errors import IntegrityError
from keys.seal import CANARY_CONTEXT
from keys.stream import DataKey, ciphertext_size
from vault.domain.documents import stream_context
from vault.domain.orders import macs

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wraps.json").read_text("utf-8"))
SEALED = {vector["what"]: vector for vector in VECTORS["sealed"]}


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("vector", VECTORS["sealed"], ids=lambda vector: vector["what"])
def test_the_vectors_are_what_the_formats_say(vector) -> None:
    """Version, nonce, AES-256-GCM over the plaintext, with version and context as its data."""
    nonce, context = raw(vector["nonce"]), vector["context"].encode("ascii")
    body = AESGCM(raw(vector["key"])).encrypt(nonce, raw(vector["plaintext"]), b"\x01" + context)
    assert b"\x01" + nonce + body == raw(vector["sealed"])


@pytest.mark.parametrize("vector", VECTORS["derived"], ids=lambda vector: vector["purpose"])
def test_the_derived_keys_are_what_the_formats_say(vector) -> None:
    """HKDF-SHA-256-Expand to 32 bytes is one HMAC of the purpose's name and the byte 01."""
    info = f"portvault/derive/v1/{vector['purpose']}".encode("ascii")
    assert hmac.digest(raw(vector["key"]), info + b"\x01", sha256) == raw(vector["derived"])
    assert wrap.derive(raw(vector["key"]), vector["purpose"]) == raw(vector["derived"])


@pytest.mark.parametrize("what", ["root key", "data key"])
def test_a_known_wrap_is_made_and_opened(what: str) -> None:
    """The same key, context and nonce are the same wrap, and it opens."""
    vector = SEALED[what]
    key, child = raw(vector["key"]), raw(vector["plaintext"])
    context, nonce = vector["context"].encode(), raw(vector["nonce"])
    assert wrap.wrap(key, child, context, nonce) == raw(vector["sealed"])
    assert wrap.unwrap(key, raw(vector["sealed"]), context) == child


def test_a_known_page_is_made_and_opened() -> None:
    """A page is sixty keys in a row, empty slots zero."""
    vector = SEALED["page"]
    page = bytearray(wrap.PAGE_BYTES)
    for slot, key in VECTORS["slots"].items():
        wrap.set_child_key(page, int(slot), raw(key))
    context, nonce = vector["context"].encode(), raw(vector["nonce"])
    assert bytes(page) == raw(vector["plaintext"])
    assert wrap.encrypt_page(raw(vector["key"]), page, context, nonce) == raw(vector["sealed"])
    opened = wrap.decrypt_page(raw(vector["key"]), raw(vector["sealed"]), context)
    for slot, key in VECTORS["slots"].items():
        assert wrap.child_key(opened, int(slot)) == raw(key)


def test_the_contexts_are_those_of_the_vectors() -> None:
    """Each context names what must not be swapped, in the words of the formats."""
    facts = VECTORS["facts"]
    region, generation, node = facts["region"], facts["generation"], facts["node"]
    scope, identity, epoch = UUID(facts["scope"]), UUID(facts["id"]), facts["epoch"]
    assert {what: vector["context"].encode() for what, vector in SEALED.items()} == {
        "root key": wrap.root_context(region, generation),
        "page": wrap.page_context(region, node, epoch),
        "data key": wrap.data_key_context(region, scope, epoch, identity),
        "canary": CANARY_CONTEXT,
    }


@pytest.mark.parametrize("vector", VECTORS["not opened"], ids=lambda vector: vector["what"])
def test_what_is_wrong_does_not_open(vector) -> None:
    """A wrap or page with one thing wrong is refused, whoever looks, without a word on what."""
    key, sealed, context = raw(vector["key"]), raw(vector["sealed"]), vector["context"].encode()
    opens = wrap.decrypt_page if vector["of"] == "page" else wrap.unwrap
    with pytest.raises(IntegrityError) as refused:
        opens(key, sealed, context)
    assert refused.value.__cause__ is None
    if vector["authentic"]:
        size = len(AESGCM(key).decrypt(sealed[1:13], sealed[13:], b"\x01" + context))
        assert size != (wrap.PAGE_BYTES if vector["of"] == "page" else wrap.KEY_BYTES)
    elif sealed[:1] == b"\x01" and len(sealed) >= 29:
        with pytest.raises(InvalidTag):
            AESGCM(key).decrypt(sealed[1:13], sealed[13:], b"\x01" + context)


@pytest.mark.parametrize("slot", VECTORS["no slots"])
def test_an_empty_slot_has_no_key(slot: int) -> None:
    """Neither an empty slot nor one beyond the page gives a key of zeros."""
    vector = SEALED["page"]
    page = wrap.decrypt_page(raw(vector["key"]), raw(vector["sealed"]), vector["context"].encode())
    with pytest.raises(IntegrityError):
        wrap.child_key(page, slot)


@pytest.mark.parametrize("swap", VECTORS["swapped"], ids=lambda swap: swap["what"])
def test_a_swapped_child_opens_nothing(swap) -> None:
    """The key of another slot does not open what hangs on this one."""
    vector = SEALED["page"]
    page = wrap.decrypt_page(raw(vector["key"]), raw(vector["sealed"]), vector["context"].encode())
    sealed, context = raw(swap["sealed"]), swap["context"].encode()
    assert wrap.unwrap(wrap.child_key(page, swap["slot"]), sealed, context)
    with pytest.raises(IntegrityError):
        wrap.unwrap(wrap.child_key(page, swap["other"]), sealed, context)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_keys_of_32_bytes_are_wrapped(size: int) -> None:
    """What is not a key is not wrapped, and a page of another length is not sealed."""
    with pytest.raises(IntegrityError):
        wrap.wrap(bytes(32), bytes(size), b"context")
    with pytest.raises(IntegrityError):
        wrap.encrypt_page(bytes(32), bytes(wrap.PAGE_BYTES + size - 32), b"context")


def test_a_known_number_stands_in_the_index_as_its_mac() -> None:
    """HMAC-SHA-256 of the number in E.164 under the index's derived key, and no other number's."""
    known = VECTORS["number"]
    derived = {item["purpose"]: raw(item["derived"]) for item in VECTORS["derived"]}["number-index"]
    assert hmac.digest(derived, known["number"].encode("ascii"), sha256) == raw(known["mac"])
    marks = macs(DataKey(raw(known["key"])), [known["number"], "+442079460124"])
    assert marks[0] == raw(known["mac"]) != marks[1]


def test_a_known_stream_opens() -> None:
    """A document's stream opens under the derived key and its context, and gives its bytes."""
    known = VECTORS["stream"]
    facts, sealed = VECTORS["facts"], raw(known["stream"])
    context = stream_context(facts["region"], UUID(facts["id"]))
    assert context == known["context"].encode()
    decryptor = Cobblestone256Decryptor(raw(known["content_key"]), context)
    assert decryptor.update(sealed) + decryptor.finalize() == raw(known["plaintext"])
    ours = DataKey(raw(known["key"])).decryptor(context)
    assert ours.update(sealed) + ours.finalize() == raw(known["plaintext"])
    assert len(sealed) == ciphertext_size(len(raw(known["plaintext"])))


@pytest.mark.parametrize("context", VECTORS["stream"]["wrong_contexts"])
def test_a_stream_opens_under_no_other_context(context: str) -> None:
    """Another region, document or version, or the context of metadata, opens no stream."""
    known = VECTORS["stream"]
    stream = DataKey(raw(known["key"])).decryptor(context.encode())
    with pytest.raises(IntegrityError):
        stream.update(raw(known["stream"])) + stream.finalize()


def test_known_metadata_opens() -> None:
    """Metadata is sealed like a wrap under a derived key of its own."""
    known = VECTORS["metadata"]
    key, context, nonce = raw(known["key"]), known["context"].encode(), raw(known["nonce"])
    body = AESGCM(raw(known["metadata_key"])).encrypt(
        nonce, raw(known["plaintext"]), b"\x01" + context
    )
    assert b"\x01" + nonce + body == raw(known["sealed"])
    assert DataKey(key).decrypt(raw(known["sealed"]), context) == raw(known["plaintext"])
