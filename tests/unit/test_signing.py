"""The signing key is replaced without anybody losing trust who held one of the keys before."""

import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.errors import IntegrityError, KeysError
from keys.notes.note import Signer, Verifier
from keys.notes.signing import (
    HANDOVER,
    Mark,
    SigningKeys,
    announcement_text,
    handover_text,
    own_key,
    revocation_text,
    trust,
)

TEXT = "portvault/uk\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = TEXT.split("\n")[2]
MARKS = [Mark("portvault/uk", 7, ROOT), Mark("portvault/sg", 3, ROOT)]


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    """Give a key in a directory of its own."""
    return SigningKeys(tmp_path / "signing.key", "portvault")


def again(keys: SigningKeys) -> SigningKeys:
    """Open the same files as another process does."""
    return SigningKeys(keys._path, "portvault")


def known(vkey: str, notes: Iterable[str]) -> list[str]:
    """Return the keys that follow from one, that one first."""
    return list(trust(vkey, notes).keys)


def checkpoint(size: int, region: str = "uk") -> str:
    """Return the text of a checkpoint."""
    return f"portvault/{region}\n{size}\n{ROOT}\n"


def rotate(keys: SigningKeys) -> tuple[str, str]:
    """Replace the key; returns the old one and the new one."""
    old = keys.vkey
    keys.begin_rotation()
    return old, keys.finish_rotation(MARKS)


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
        assert known(first, notes) == [first, second, third]
        assert known(third, notes) == [third, second, first]
    assert known(first, handovers[2:]) == [first]
    assert trust(first, handovers).verify(keys.sign(TEXT)) == TEXT


def test_no_key_can_name_another_alone(keys: SigningKeys) -> None:
    """A handover that one side did not sign, or that says something else, adds nobody."""
    thief = Signer("portvault", Ed25519PrivateKey.generate())
    victim = Signer("portvault", Ed25519PrivateKey.generate())
    text = handover_text(victim.vkey, thief.vkey, MARKS)
    by_both = f"{text}\n{victim.line(text)}{thief.line(text)}"
    assert known(victim.vkey, [by_both]) == [victim.vkey, thief.vkey]
    other = text.replace(HANDOVER, "portvault-log-key/v0")
    for forged in (
        thief.sign(text),
        victim.sign(text),
        f"{other}\n{victim.line(other)}{thief.line(other)}",
        by_both.replace(thief.vkey, keys.vkey),
        "",
        "no note",
    ):
        assert known(victim.vkey, [forged]) == [victim.vkey]
        assert known(thief.vkey, [forged]) == [thief.vkey]


def test_a_retired_key_counts_up_to_its_handover_and_no_further(keys: SigningKeys) -> None:
    """Whichever of the keys one was given: what an old one signs now counts for nothing."""
    retired = Signer("portvault", own_key(keys._path))
    first, second = rotate(keys)
    third = rotate(keys)[1]
    for vkey in (first, second, third):
        found = trust(vkey, keys.handovers)
        for size, region, holds in (
            (7, "uk", True),
            (8, "uk", False),
            (3, "sg", True),
            (4, "sg", False),
            (1, "nz", False),
        ):
            note = retired.sign(checkpoint(size, region))
            assert found.recognise(note)
            if holds:
                assert found.verify(note) == checkpoint(size, region)
                continue
            with pytest.raises(IntegrityError):
                found.verify(note)
        assert found.verify(retired.sign(checkpoint(7).replace("uk\n", "uk#minimum\n")))
        for text in ("portvault-certificate/v1\n{}\n", "portvault/uk\nx\n", "portvault/uk\n"):
            with pytest.raises(IntegrityError):
                found.verify(retired.sign(text))
        assert set(MARKS) == set(found.marks)
    assert keys.verify(retired.sign(checkpoint(7)))
    with pytest.raises(IntegrityError):
        keys.verify(retired.sign(checkpoint(8)))


def test_a_retired_key_names_no_successor_and_no_ancestor_of_more_worth(keys: SigningKeys) -> None:
    """Its thief can sign handovers to and from keys of his own: they get nothing by it."""
    retired = Signer("portvault", own_key(keys._path))
    thief = Signer("portvault", Ed25519PrivateKey.generate())
    first, second = rotate(keys)

    def both(text: str) -> str:
        return f"{text}\n{retired.line(text)}{thief.line(text)}"

    wide = [Mark("portvault/uk", 10**6, ROOT)]
    forged = [
        both(handover_text(first, thief.vkey, wide)),
        both(handover_text(thief.vkey, first, wide)),
        both(announcement_text(first, thief.vkey)),
        retired.sign(revocation_text(second, [])),
        thief.sign(revocation_text(first, wide)),
    ]
    for notes in ([*keys.handovers, *forged], [*forged, *keys.handovers]):
        found = trust(second, notes)
        for size in (8, 10**6):
            for signer in (retired, thief):
                with pytest.raises(IntegrityError):
                    found.verify(signer.sign(checkpoint(size)))
        assert found.verify(keys.sign(checkpoint(9)))
    # Who was given only the stolen key sees two that claim to follow it, and believes neither.
    assert known(first, [*keys.handovers, forged[0]]) == [first]


def test_a_handover_of_before_there_were_marks_leads_forward_alone(keys: SigningKeys) -> None:
    """Who has the older key is led on; who has the newer believes the older for nothing by it."""
    retired = Signer("portvault", own_key(keys._path))
    first = keys.vkey
    second = keys.begin_rotation()
    keys._next.replace(keys._path)
    keys.reload()
    assert len(keys.handovers) == 1
    assert trust(first, keys.handovers).verify(keys.sign(checkpoint(9)))
    with pytest.raises(IntegrityError):
        trust(second, keys.handovers).verify(retired.sign(checkpoint(1)))
    # The vault itself goes on with what it has on its own disk, until the key is revoked.
    assert keys.verify(retired.sign(checkpoint(9)))
    keys.revoke(first, MARKS)
    for found in (keys.trust, trust(first, keys.handovers)):
        assert found.verify(retired.sign(checkpoint(7)))
        with pytest.raises(IntegrityError):
            found.verify(retired.sign(checkpoint(9)))


def test_a_stolen_key_says_so_itself(keys: SigningKeys) -> None:
    """Who was given only that one follows it nowhere, and is told; who has the new one goes on."""
    stolen = Signer("portvault", own_key(keys._path))
    first = keys.vkey
    keys.begin_rotation()
    second = keys.finish_rotation(MARKS, stolen=True)
    left = trust(first, keys.handovers)
    assert (left.revoked, list(left.keys)) == (True, [first])
    with pytest.raises(IntegrityError):
        left.verify(stolen.sign(checkpoint(8)))
    found = trust(second, keys.handovers)
    assert not found.revoked
    assert found.verify(stolen.sign(checkpoint(7)))
    with pytest.raises(IntegrityError):
        found.verify(stolen.sign(checkpoint(8)))


def test_only_a_key_that_was_replaced_is_revoked(keys: SigningKeys) -> None:
    """The current one is replaced instead; a stranger's is none of ours."""
    for vkey in (keys.vkey, Signer("portvault", Ed25519PrivateKey.generate()).vkey):
        with pytest.raises(KeysError, match="--stolen"):
            keys.revoke(vkey, MARKS)


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
    new = again(keys).finish_rotation(MARKS)
    assert known(old, again(keys).handovers) == [old, new]


def test_what_was_not_begun_cannot_be_finished(keys: SigningKeys) -> None:
    """The refusal says what to type first; the key of now stands."""
    vkey = keys.vkey
    with pytest.raises(KeysError, match="rotate-key"):
        keys.finish_rotation(MARKS)
    assert again(keys).vkey == vkey


def test_a_running_server_learns_of_a_rotation(keys: SigningKeys) -> None:
    """Another process that rotates the key is followed at the next signature or look."""
    server = again(keys)
    new = keys.begin_rotation()
    assert Verifier(new).verify(server.sign(TEXT)) == TEXT
    keys.finish_rotation(MARKS)
    assert again(keys).verify(keys.sign(TEXT)) == server.verify(keys.sign(TEXT)) == TEXT
    assert server.sign(TEXT) == keys.sign(TEXT)


def test_nothing_of_a_key_is_shown(keys: SigningKeys) -> None:
    """Neither repr nor str shows anything but the name."""
    assert repr(keys) == str(keys) == "SigningKeys(portvault)"
