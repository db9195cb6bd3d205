"""The signing key is replaced without anybody losing trust who held one of the keys before."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.errors import IntegrityError, KeysError
from keys.note import AnyVerifier, Signer, Verifier
from keys.signing import HANDOVER, SigningKeys, handover_text, trusted

TEXT = "portvault/uk\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    """Give a key in a directory of its own."""
    return SigningKeys(tmp_path / "signing.key", "portvault")


def again(keys: SigningKeys) -> SigningKeys:
    """Open the same files as another process does."""
    return SigningKeys(keys._path, "portvault")


def rotate(keys: SigningKeys) -> tuple[str, str]:
    """Replace the key; returns the old one and the new one."""
    old = keys.vkey
    keys.begin_rotation()
    return old, keys.finish_rotation()


def test_while_a_key_takes_over_both_sign(keys: SigningKeys) -> None:
    """Who knows only the old key, and who knows only the new one, accept what is signed now."""
    old = keys.vkey
    new = keys.begin_rotation()
    note = keys.sign(TEXT)
    assert old != new
    assert (keys.vkey, note.count("\n— portvault ")) == (old, 2)
    for vkey in (old, new):
        assert Verifier(vkey).verify(note) == TEXT


def test_afterwards_the_new_key_signs_alone_and_the_old_one_is_gone(keys: SigningKeys) -> None:
    """No file holds the old private key any more; what it signed still verifies here."""
    before, files = keys.sign(TEXT), set(keys._path.parent.iterdir())
    secret = keys._path.read_bytes()
    old, new = rotate(keys)
    after = keys.sign(TEXT)
    assert keys.vkey == new
    assert Verifier(new).verify(after) == TEXT
    with pytest.raises(IntegrityError):
        Verifier(old).verify(after)
    assert keys.verify(before) == again(keys).verify(before) == TEXT
    left = set(keys._path.parent.iterdir())
    assert {path.name for path in left - files} == {"signing.handovers"}
    assert secret not in [path.read_bytes() for path in left]
    assert {stat.S_IMODE(path.stat().st_mode) for path in left} == {0o600}


def test_who_trusts_the_first_key_is_led_to_the_last(keys: SigningKeys) -> None:
    """Handovers form a chain that is followed forwards and backwards, whatever their order."""
    first, second = rotate(keys)
    _, third = rotate(keys)
    handovers = list(keys.handovers)
    for notes in (handovers, handovers[::-1]):
        assert trusted(first, notes) == [first, second, third]
        assert trusted(third, notes) == [third, second, first]
    assert trusted(first, handovers[1:]) == [first]
    assert AnyVerifier(trusted(first, handovers)).verify(keys.sign(TEXT)) == TEXT


def test_no_key_can_name_another_alone(keys: SigningKeys) -> None:
    """A handover that one side did not sign, or that says something else, adds nobody."""
    thief = Signer("portvault", Ed25519PrivateKey.generate())
    victim = Signer("portvault", Ed25519PrivateKey.generate())
    text = handover_text(victim.vkey, thief.vkey)
    by_both = f"{text}\n{victim.line(text)}{thief.line(text)}"
    assert trusted(victim.vkey, [by_both]) == [victim.vkey, thief.vkey]
    other = text.replace(HANDOVER, "portvault-log-key/v0")
    for forged in (
        thief.sign(text),
        victim.sign(text),
        f"{other}\n{victim.line(other)}{thief.line(other)}",
        by_both.replace(thief.vkey, keys.vkey),
        "",
        "no note",
    ):
        assert trusted(victim.vkey, [forged]) == [victim.vkey]
        assert trusted(thief.vkey, [forged]) == [thief.vkey]


def test_a_rotation_may_be_begun_twice(keys: SigningKeys) -> None:
    """One that was interrupted goes on with the key it made, and is noted once."""
    new = keys.begin_rotation()
    assert keys.begin_rotation() == again(keys).begin_rotation() == new
    assert len(keys.handovers) == 1
    keys._history.unlink()
    assert again(keys).begin_rotation() == new
    assert len(again(keys).handovers) == 1


def test_no_key_takes_over_unannounced(keys: SigningKeys) -> None:
    """A crash before the handover was kept does not lead to a key that nobody can trust."""
    old = keys.vkey
    keys.begin_rotation()
    keys._history.unlink()
    new = again(keys).finish_rotation()
    assert trusted(old, again(keys).handovers) == [old, new]


def test_what_was_not_begun_cannot_be_finished(keys: SigningKeys) -> None:
    """The refusal says what to type first; the key of now stands."""
    vkey = keys.vkey
    with pytest.raises(KeysError, match="rotate-key"):
        keys.finish_rotation()
    assert again(keys).vkey == vkey


def test_a_running_server_learns_of_a_rotation(keys: SigningKeys) -> None:
    """Another process that rotates the key is followed at the next signature or look."""
    server = again(keys)
    new = keys.begin_rotation()
    assert Verifier(new).verify(server.sign(TEXT)) == TEXT
    keys.finish_rotation()
    assert again(keys).verify(keys.sign(TEXT)) == server.verify(keys.sign(TEXT)) == TEXT
    assert server.sign(TEXT) == keys.sign(TEXT)


def test_nothing_of_a_key_is_shown(keys: SigningKeys) -> None:
    """Neither repr nor str shows anything but the name."""
    assert repr(keys) == str(keys) == "SigningKeys(portvault)"
