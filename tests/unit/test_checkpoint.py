"""Checkpoints: their text, and whose they are."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import IntegrityError
from keys.notes.note import Signer, Verifier
from vault.domain.checkpoint import Checkpoint, decode, encode, open_checkpoint, origin
from vault.domain.merkle import EMPTY_ROOT

SIGNER = Signer("portvault", Ed25519PrivateKey.generate())
VERIFIER = Verifier(SIGNER.vkey)
ROOT = base64.b64encode(EMPTY_ROOT).decode()


def test_the_text_is_the_written_one() -> None:
    """Origin, size and root, a line each."""
    assert encode(Checkpoint(origin("uk"), 0, EMPTY_ROOT)) == f"portvault/uk\n0\n{ROOT}\n"


@given(
    st.builds(
        Checkpoint,
        st.sampled_from(["portvault/uk", "portvault/sg"]),
        st.integers(0, 2**63 - 1),
        st.binary(min_size=32, max_size=32),
    )
)
def test_a_checkpoint_comes_back(checkpoint: Checkpoint) -> None:
    """Decoding what was encoded gives the same checkpoint."""
    assert decode(encode(checkpoint)) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "portvault/uk\n",
        f"portvault/uk\n0\n{ROOT}",
        f"portvault/uk\n0\n{ROOT}\nmore\n",
        f"\n0\n{ROOT}\n",
        f"portvault/uk\n-1\n{ROOT}\n",
        f"portvault/uk\n+1\n{ROOT}\n",
        f"portvault/uk\n01\n{ROOT}\n",
        f"portvault/uk\n1_0\n{ROOT}\n",
        f"portvault/uk\n١\n{ROOT}\n",
        f"portvault/uk\nten\n{ROOT}\n",
        f"portvault/uk\n{'9' * 5000}\n{ROOT}\n",
        "portvault/uk\n0\n\n",
        f"portvault/uk\n0\n{ROOT[:-4]}\n",
        f"portvault/uk\n0\n{ROOT[:-2]}V=\n",
        f"portvault/uk\n0\n{ROOT} \n",
        f"portvault/uk\r\n0\r\n{ROOT}\r\n",
    ],
)
def test_other_texts_are_no_checkpoint(text: str) -> None:
    """One way to write a checkpoint, and no other."""
    with pytest.raises(ValueError, match="not a checkpoint"):
        decode(text)


def test_only_this_log_signed_by_this_key_opens() -> None:
    """A checkpoint of another region, another key or another kind of note is refused."""
    checkpoint = Checkpoint(origin("uk"), 0, EMPTY_ROOT)
    note = SIGNER.sign(encode(checkpoint))
    assert open_checkpoint(note, VERIFIER, "uk") == checkpoint
    other = Signer("portvault", Ed25519PrivateKey.generate())
    for wrong in (
        SIGNER.sign(encode(Checkpoint(origin("sg"), 0, EMPTY_ROOT))),
        other.sign(encode(checkpoint)),
        SIGNER.sign("portvault-certificate/v1\n{}\n"),
        encode(checkpoint),
    ):
        with pytest.raises(IntegrityError):
            open_checkpoint(wrong, VERIFIER, "uk")
