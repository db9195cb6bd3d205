"""
The key that signs the log: a file beside the data, made at the first start, and how it is replaced.

While one key takes over from another there are two files, and everything is signed with both. The
notes that lead from one key to another (`keys/notes/signing.py`) stay in a file of their own.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.errors import IntegrityError, KeysError
from keys.ground.secret_files import is_private, sync_directory, write_private
from keys.notes.note import AnyVerifier, Signer, Verifier, parse_note

# ---- Whose signature counts for what: one key hands over to the next, and a stolen one is
# revoked.
#
# A *handover* names the log's size and root at the time when the old key ceased to sign. Who was
# given the newer key believes the older one only up to there, and who was given the older one is
# led to the newer. An *announcement*, before the handover, leads forward alone. A *revocation*
# says of a key up to where what it signed counts; signed by that key itself it says, too, that the
# key's handovers are not to be followed. docs/formats.md has the three notes.

ANNOUNCEMENT = "portvault-log-key/v1"
HANDOVER = "portvault-log-key/v2"
REVOCATION = "portvault-log-key-revoked/v1"

#: Up to which size of each log a key counts; None: of every log, whatever its size.
Bound = Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A log's name, size and root (base64) at the time of a handover."""

    origin: str
    size: int
    root: str


def announcement_text(old: str, new: str) -> str:
    """Return what both keys sign while the new one is going to take over from the old one."""
    return f"{ANNOUNCEMENT}\n{old}\n{new}\n"


def handover_text(old: str, new: str, marks: Sequence[Mark]) -> str:
    """Return what both keys sign when the old one ceases to sign."""
    return f"{HANDOVER}\n{old}\n{new}\n{_lines(marks)}"


def revocation_text(key: str, marks: Sequence[Mark]) -> str:
    """Return what is signed to say that a key counts for nothing beyond the marks."""
    return f"{REVOCATION}\n{key}\n{_lines(marks)}"


def _lines(marks: Sequence[Mark]) -> str:
    return "".join(f"{mark.origin} {mark.size} {mark.root}\n" for mark in marks)


@dataclass(frozen=True, slots=True)
class _Handover:
    old: str
    new: str
    #: None in an announcement.
    marks: Sequence[Mark] | None


@dataclass(frozen=True, slots=True)
class _Revocation:
    key: str
    marks: Sequence[Mark]
    note: str

    def signed_by(self, vkey: str) -> bool:
        with contextlib.suppress(IntegrityError):
            Verifier(vkey).verify(self.note)
            return True
        return False


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys that follow from one that is trusted, that one first, and how far each counts."""

    keys: Mapping[str, Bound]
    #: What the log was at the handovers: a log that counts has these as prefixes.
    marks: Sequence[Mark]
    #: Whether the trusted key itself says that it was stolen: its handovers lead nowhere.
    revoked: bool

    def verify(self, note: str) -> str:
        """Return the text of a note that a key signed which counts for it, or `IntegrityError`."""
        for vkey, bound in self.keys.items():
            with contextlib.suppress(IntegrityError):
                text = Verifier(vkey).verify(note)
                if bound is None or _is_within(text, bound):
                    return text
        raise IntegrityError

    def recognise(self, note: str) -> str:
        """Return the text of a note that any of the keys signed, whatever it counts for now."""
        return AnyVerifier(self.keys).verify(note)


def _is_within(text: str, bound: Mapping[str, int]) -> bool:
    """Whether a text is a checkpoint, or the minimum, of a log within the bound."""
    origin, size, *_ = text.split("\n", 2)
    name = origin.partition("#")[0]
    return name in bound and size.isascii() and size.isdigit() and int(size) <= bound[name]


def trust(vkey: str, notes: Iterable[str], *, announced_counts: bool = False) -> Trust:
    """
    Return what who trusts a key may believe; notes that are forged or unknown add nothing.

    Where two keys claim to follow one, neither is believed. `announced_counts` believes keys that
    are known by an announcement alone (a handover of before there were marks) without a bound.
    """
    Verifier(vkey)
    given = list(notes)
    handovers, revocations = list(_handovers(given)), list(_revocations(given))
    keys: dict[str, Bound] = {vkey: None}
    marks, current = list[Mark](), vkey
    stolen = {found.key for found in revocations if found.signed_by(found.key)}
    while current not in stolen:
        following = {item.new for item in handovers if item.old == current} - set(keys)
        if len(following) != 1:
            break
        (new,) = following
        for item in handovers:
            if (item.old, item.new) == (current, new) and item.marks is not None:
                keys[current] = _least(keys[current], _bound(item.marks))
                marks += item.marks
        keys[new], current = None, new
    _follow_back(vkey, handovers, keys, marks, announced_counts=announced_counts)
    for found in revocations:
        above = [key for key, bound in keys.items() if bound is None and key != found.key]
        if found.key in keys and any(map(found.signed_by, (found.key, *above))):
            keys[found.key] = _least(keys[found.key], _bound(found.marks))
    return Trust(keys, marks, vkey in stolen)


def _follow_back(
    vkey: str,
    handovers: Sequence[_Handover],
    keys: dict[str, Bound],
    marks: list[Mark],
    *,
    announced_counts: bool,
) -> None:
    """Add the keys before one that is trusted: each counts no further than the one after it."""
    waiting: list[tuple[str, Bound]] = [(vkey, keys[vkey])]
    for current, limit in waiting:
        for old in {item.old for item in handovers if item.new == current} - set(keys):
            both = [item for item in handovers if (item.old, item.new) == (old, current)]
            ended = [item.marks for item in both if item.marks is not None]
            bound: Bound = _bound(ended[0]) if ended else {}
            if not ended and announced_counts:
                bound = None
            for found in ended:
                marks += found
                bound = _least(bound, _bound(found))
            keys[old] = _least(limit, bound)
            waiting.append((old, keys[old]))


def _bound(marks: Sequence[Mark]) -> dict[str, int]:
    bound = dict[str, int]()
    for mark in marks:
        bound[mark.origin] = min(mark.size, bound.get(mark.origin, mark.size))
    return bound


def _least(one: Bound, other: Bound) -> Bound:
    if one is None or other is None:
        return other if one is None else one
    return {name: min(one[name], other[name]) for name in one.keys() & other.keys()}


def _handovers(notes: Iterable[str]) -> Iterator[_Handover]:
    """Yield what both of its keys signed: neither of them can name another alone."""
    for note in notes:
        with contextlib.suppress(IntegrityError, ValueError):
            title, old, new, *lines = parse_note(note).text.splitlines()
            if title not in (ANNOUNCEMENT, HANDOVER) or (title == ANNOUNCEMENT and lines):
                continue
            Verifier(old).verify(note)
            Verifier(new).verify(note)
            yield _Handover(old, new, _marks(lines) if title == HANDOVER else None)


def _revocations(notes: Iterable[str]) -> Iterator[_Revocation]:
    for note in notes:
        with contextlib.suppress(IntegrityError, ValueError):
            title, key, *lines = parse_note(note).text.splitlines()
            if title == REVOCATION:
                yield _Revocation(key, _marks(lines), note)


def _marks(lines: Sequence[str]) -> list[Mark]:
    marks = []
    for line in lines:
        origin, size, root = line.split(" ")
        if not (size.isascii() and size.isdigit()):
            raise ValueError("not the size of a log")
        marks.append(Mark(origin, int(size), root))
    return marks


# ---- Signing. -----------------------------------------------------------------------------------


class SigningKeys:
    """The key of now, the one that is to follow while there is one, and what is known of others."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._next = path.with_suffix(".next")
        self._history = path.with_suffix(".handovers")
        self._seen: tuple[int | None, ...] = ()
        self._signers: list[Signer] = []
        self._handovers: list[str] = []
        own_key(path)
        self.reload()

    def __repr__(self) -> str:
        return f"SigningKeys({self._name})"

    @property
    def vkey(self) -> str:
        """Return the public half of the key of now."""
        return self._signers[0].vkey

    @property
    def following(self) -> str | None:
        """Return the public half of the key that is to take over, while there is one."""
        return self._signers[1].vkey if len(self._signers) > 1 else None

    @property
    def handovers(self) -> Sequence[str]:
        """Return the notes by which one key named the next."""
        return self._handovers

    @property
    def trust(self) -> Trust:
        """Return every key that ever signed, the current one first, and how far each counts."""
        self.reload()
        return self._trust

    def sign(self, text: str) -> str:
        """Return the note of a text, signed with every key there is now."""
        self.reload()
        return f"{text}\n{''.join(signer.line(text) for signer in self._signers)}"

    def derived(self, purpose: str) -> Sequence[bytes]:
        """Return a secret for a purpose, of the current key first; every process has the same."""
        self.reload()
        return [signer.derived(purpose) for signer in self._signers]

    def verify(self, note: str) -> str:
        """Return the text of a note that a key signed which counts for it, or `IntegrityError`."""
        return self.trust.verify(note)

    def reload(self) -> None:
        """Read the files again if they changed, so that a rotation reaches a running server."""
        files = (self._path, self._next, self._history)
        seen = tuple(_stamp(path) for path in files)
        if seen == self._seen:
            return
        # The one that follows first: it may become the key of now between two looks.
        following = _load(self._next, self._name) if self._next.exists() else None
        signers = [_load(self._path, self._name)]
        if following is not None and following.vkey != signers[0].vkey:
            signers.append(following)
        self._handovers = json.loads(self._history.read_bytes()) if self._history.exists() else []
        # Those of before there were marks lie on this very disk: here they are believed.
        self._trust = trust(signers[0].vkey, self._handovers, announced_counts=True)
        self._signers, self._seen = signers, seen

    def begin_rotation(self) -> str:
        """Make the key that is to follow, durably; returns its public half. Safe to repeat."""
        if not self._next.exists():
            _create(self._next)
        old, new = _load(self._path, self._name), _load(self._next, self._name)
        self._keep(announcement_text(old.vkey, new.vkey), old, new)
        return new.vkey

    def finish_rotation(self, marks: Sequence[Mark], *, stolen: bool = False) -> str:
        """
        Let the new key sign alone; the old private key is gone for good. Returns the new one.

        `marks` are the logs as they are now: the old key counts no further. Of a key that was
        `stolen` it says, too, that nobody should follow it.
        """
        if not self._next.exists():
            raise KeysError("no key is waiting to take over: begin with `portvault log rotate-key`")
        # A crash may have left a key that nobody was told of.
        self.begin_rotation()
        old, new = _load(self._path, self._name), _load(self._next, self._name)
        if old.vkey != new.vkey:
            self._keep(handover_text(old.vkey, new.vkey, marks), old, new)
            if stolen:
                self._keep(revocation_text(old.vkey, marks), old, new)
        self._next.replace(self._path)
        sync_directory(self._path.parent)
        self.reload()
        return self.vkey

    def revoke(self, vkey: str, marks: Sequence[Mark]) -> None:
        """Say, signed by the current key, that an earlier one counts for nothing beyond marks."""
        if vkey == self.vkey or vkey not in self.trust.keys:
            raise KeysError(
                "only a key that was replaced can be revoked; replace the current one with "
                "`portvault log rotate-key --stolen`"
            )
        self._keep(revocation_text(vkey, marks), self._signers[0])

    def _keep(self, text: str, *signers: Signer) -> None:
        note = f"{text}\n{''.join(signer.line(text) for signer in signers)}"
        self.reload()
        if note not in self._handovers:
            history = json.dumps([*self._handovers, note], indent=1)
            write_private(self._history, history.encode(), replace=True)
        self.reload()


def _stamp(path: Path) -> int | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return hash((status.st_ino, status.st_mtime_ns))


def _unusable(path: Path, error: OSError) -> KeysError:
    return KeysError(f"the key that signs cannot be read or made: {path}: {error.strerror}")


def own_key(path: Path) -> Ed25519PrivateKey:
    """Return the key of a file of one's own, which the first call makes."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
    except OSError as error:
        raise _unusable(path, error) from None
    return _read(path)


def _load(path: Path, name: str) -> Signer:
    return Signer(name, _read(path))


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        if not is_private(path.stat()):
            raise KeysError(f"{path} signs the log and others may read it: chmod 600 {path}")
        pem = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysError(f"{path} is no Ed25519 key in PEM: put the right one back")
    return key


def _create(path: Path) -> None:
    """Make a key durably; of two starts at once, both get the first's."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, pem, replace=False)
