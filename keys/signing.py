"""
The key that signs the log: a file beside the data, made at the first start, and how it is replaced.

While one key takes over from another there are two files, and everything is signed with both. A
*handover* is a note of both keys that names them: who trusts one of them may trust the other. Those
of keys that are gone stay in a file of their own, so that what they signed can be verified.
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.errors import IntegrityError, KeysError
from keys.note import AnyVerifier, Signer, Verifier, parse_note
from keys.private_file import is_private, sync_directory, write_private

HANDOVER = "portvault-log-key/v1"


def handover_text(old: str, new: str) -> str:
    """Return what both keys sign when one takes over from the other."""
    return f"{HANDOVER}\n{old}\n{new}\n"


def trusted(vkey: str, handovers: Iterable[str]) -> list[str]:
    """Return the keys that who trusts this one may trust, itself first; forged notes add none."""
    Verifier(vkey)
    known, waiting = [vkey], list(handovers)
    for _ in range(len(waiting)):
        for note in waiting:
            with contextlib.suppress(IntegrityError, ValueError):
                title, old, new, _ = parse_note(note).text.split("\n")
                if title == HANDOVER and (old in known) != (new in known):
                    # Both must have signed: neither of them can name another alone.
                    Verifier(old).verify(note)
                    Verifier(new).verify(note)
                    known.append(new if old in known else old)
    return known


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
    def vkeys(self) -> list[str]:
        """Return every key that ever signed, the one of now first."""
        return trusted(self.vkey, self._handovers)

    def sign(self, text: str) -> str:
        """Return the note of a text, signed with every key there is now."""
        self.reload()
        return f"{text}\n{''.join(signer.line(text) for signer in self._signers)}"

    def derived(self, purpose: str) -> Sequence[bytes]:
        """Return a secret for a purpose, of the current key first; every process has the same."""
        self.reload()
        return [signer.derived(purpose) for signer in self._signers]

    def verify(self, note: str) -> str:
        """Return the text of a note that one of the keys signed; raises `IntegrityError`."""
        self.reload()
        return AnyVerifier(self.vkeys).verify(note)

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
        self._signers, self._seen = signers, seen

    def begin_rotation(self) -> str:
        """Make the key that is to follow, durably; returns its public half. Safe to repeat."""
        if not self._next.exists():
            _create(self._next)
        old, new = _load(self._path, self._name), _load(self._next, self._name)
        text = handover_text(old.vkey, new.vkey)
        note = f"{text}\n{old.line(text)}{new.line(text)}"
        self.reload()
        if note not in self._handovers:
            history = json.dumps([*self._handovers, note], indent=1)
            write_private(self._history, history.encode(), replace=True)
        self.reload()
        return new.vkey

    def finish_rotation(self) -> str:
        """Let the new key sign alone; the old private key is gone for good. Returns the new one."""
        if not self._next.exists():
            raise KeysError("no key is waiting to take over: begin with `portvault log rotate-key`")
        # A crash may have left a key that nobody was told of.
        self.begin_rotation()
        self._next.replace(self._path)
        sync_directory(self._path.parent)
        self.reload()
        return self.vkey


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
