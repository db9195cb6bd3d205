"""Signed notes against Go's vectors, and every way in which a note or a key can be wrong."""

import json
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import IntegrityError, KeysError
from keys.notes.note import Signer, Verifier
from keys.notes.signing import SigningKeys

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "note.json").read_text("utf-8"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["signer"]["seed"]))
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"))


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["what"])
def test_known_notes(vector) -> None:
    """What others signed verifies, and gives its text."""
    assert Verifier(vector["vkey"]).verify(vector["note"]) == vector["text"]


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["what"])
def test_wrong_notes(vector) -> None:
    """A note with one thing wrong is refused, without a word on what."""
    with pytest.raises(IntegrityError):
        Verifier(VECTORS["bad_vkey"]).verify(vector["note"])


@pytest.mark.parametrize("vkey", VECTORS["bad_vkeys"])
def test_wrong_verifier_keys(vkey: str) -> None:
    """A verifier key with one thing wrong is refused."""
    with pytest.raises(IntegrityError):
        Verifier(vkey)


def test_a_known_key_signs_the_known_note() -> None:
    """Ed25519 is deterministic: the same key and text are the same note."""
    known = VECTORS["signer"]
    signer = Signer(known["name"], KEY)
    assert (signer.vkey, signer.sign(known["text"])) == (known["vkey"], known["note"])


@given(TEXTS.map(lambda text: text + "\n"))
def test_what_is_signed_verifies(text: str) -> None:
    """Every text comes back, also one with empty lines or with lines like signatures."""
    signer = Signer("portvault", KEY)
    assert Verifier(signer.vkey).verify(signer.sign(text)) == text


@pytest.mark.parametrize("text", ["", "no newline", "bell\x07\n", "return\r\n", "half \ud800\n"])
def test_what_is_no_text_is_not_signed(text: str) -> None:
    """Only UTF-8 lines without control characters are signed."""
    with pytest.raises(KeysError, match="newline"):
        Signer("portvault", KEY).sign(text)


@pytest.mark.parametrize("name", ["", "port vault", "port+vault", "port\nvault"])
def test_what_is_no_name_signs_nothing(name: str) -> None:
    """A name that would break the format is refused."""
    with pytest.raises(KeysError, match="plus sign"):
        Signer(name, KEY)


def test_the_key_is_not_shown() -> None:
    """Neither repr nor str shows anything but the name."""
    signer = Signer("portvault", KEY)
    assert repr(signer) == str(signer) == "Signer(portvault)"


def test_the_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    """The first start makes the key and its directory; the next finds it; nothing else lies by."""
    path = tmp_path / "home" / "signing.pem"
    first = SigningKeys(path, "portvault")
    assert SigningKeys(path, "portvault").vkey == first.vkey
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_starts_at_once_agree(tmp_path: Path) -> None:
    """Many starts at the same moment all get the one key that was made."""
    path = tmp_path / "signing.pem"
    together = threading.Barrier(8)
    found: list[str] = []

    def start() -> None:
        together.wait()
        found.append(SigningKeys(path, "portvault").vkey)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The refusal says what to type."""
    path = tmp_path / "signing.pem"
    SigningKeys(path, "portvault")
    path.chmod(mode)
    with pytest.raises(KeysError, match=f"chmod 600 {path}"):
        SigningKeys(path, "portvault")


def test_another_key_or_no_key_is_refused(tmp_path: Path) -> None:
    """A file that holds something else is named, never replaced."""
    path = tmp_path / "signing.pem"
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for content in (b"", b"hello", other):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeysError, match="no Ed25519 key"):
            SigningKeys(path, "portvault")
        assert path.read_bytes() == content


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file where the directory should be is an error of ours, with the path in it."""
    (tmp_path / "home").write_text("")
    with pytest.raises(KeysError, match="signing.pem"):
        SigningKeys(tmp_path / "home" / "signing.pem", "portvault")
