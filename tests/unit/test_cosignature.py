"""Cosignatures: a witness's statement about a checkpoint, as C2SP tlog-cosignature writes it."""

import base64
import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import IntegrityError
from keys.notes.note import COSIGNATURE, CosignatureVerifier, Cosigner, Signer, Verifier, parse_vkey

LOG = Signer("portvault", Ed25519PrivateKey.from_private_bytes(bytes(32)))
WITNESS = Cosigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
TEXT = "portvault/uk\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
TIME = 1679315147
#: Of a witness on the internet.
REMORA = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
#: What the seed above, the text and the time give; Ed25519 is deterministic.
VKEY = "witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
LINE = (
    "— witness.example/w1 "
    "CtfTXgAAAABkGFDLI0P3+yk8/TVPy+bAnQxlIEaXWszMNwxA+vQaY4U/viQWOS1LY9JYfd"
    "+v5zvm2k//uDJnXE/zwXrWKFzbNRYiCQ==\n"
)


def cosigned(time: int = TIME) -> str:
    """Return the checkpoint, signed by the log and by the witness."""
    return LOG.sign(TEXT) + WITNESS.cosign(TEXT, time)


def test_a_known_witness_signs_the_known_line() -> None:
    """The same key, checkpoint and time are the same line, for ever."""
    assert WITNESS.vkey == VKEY
    assert WITNESS.cosign(TEXT, TIME) == LINE


def test_a_witness_on_the_internet_has_such_a_key() -> None:
    """The key of a witness that others run reads as ours do: type 4, and its hash is right."""
    assert CosignatureVerifier(REMORA).key.name == "remora.n621.de"
    assert str(parse_vkey(REMORA, COSIGNATURE)) == REMORA


def test_the_line_is_what_the_specification_says() -> None:
    """Key id, eight bytes of time, and Ed25519 over header, time and the checkpoint's text."""
    dash, name, encoded = WITNESS.cosign(TEXT, TIME).split(" ")
    raw = base64.b64decode(encoded)
    _, _, key = WITNESS.vkey.split("+", 2)
    public = base64.b64decode(key)[1:]
    assert (dash, name) == ("—", "witness.example/w1")
    assert raw[:4] == hashlib.sha256(name.encode() + b"\n\x04" + public).digest()[:4]
    assert struct.unpack(">Q", raw[4:12]) == (TIME,)
    message = f"cosignature/v1\ntime {TIME}\n{TEXT}".encode()
    Ed25519PublicKey.from_public_bytes(public).verify(raw[12:], message)


@given(st.integers(0, 2**63 - 1))
def test_what_is_cosigned_verifies(time: int) -> None:
    """The text and the time come back; the log's own signature still verifies beside it."""
    note = cosigned(time)
    assert CosignatureVerifier(WITNESS.vkey).verify(note) == (TEXT, time)
    assert Verifier(LOG.vkey).verify(note) == TEXT


@pytest.mark.parametrize(
    "note",
    [
        LOG.sign(TEXT),
        cosigned().replace("20852163", "20852164"),
        LOG.sign(TEXT) + WITNESS.line(TEXT),
        LOG.sign(TEXT) + WITNESS.key.line(struct.pack(">Q", TIME)),
        LOG.sign(TEXT)
        + WITNESS.key.line(
            struct.pack(">Q", TIME + 1)
            + base64.b64decode(WITNESS.cosign(TEXT, TIME).split(" ")[2])[12:]
        ),
    ],
    ids=["not cosigned", "another checkpoint", "a plain signature", "cut", "another time"],
)
def test_what_the_witness_did_not_say_is_refused(note: str) -> None:
    """Neither the text nor the time can be changed, and a plain signature is no cosignature."""
    with pytest.raises(IntegrityError):
        CosignatureVerifier(WITNESS.vkey).verify(note)


def test_a_log_key_is_no_witness_key() -> None:
    """The type of a key is part of it: neither kind is taken for the other."""
    with pytest.raises(IntegrityError):
        CosignatureVerifier(LOG.vkey)
    with pytest.raises(IntegrityError):
        Verifier(WITNESS.vkey)


def test_the_witness_key_is_not_shown() -> None:
    """Neither repr nor str shows anything but the name."""
    assert repr(WITNESS) == str(WITNESS) == "Cosigner(witness.example/w1)"
