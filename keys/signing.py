"""
The key that signs the log: a file beside the data, made at the first start, and how it is replaced.

While one key takes over from another there are two files, and everything is signed with both. The
notes that lead from one key to another (`keys/handover.py`) stay in a file of their own.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.errors import KeysError
from keys.handover import (
    Mark,
    Trust,
    announcement_text,
    handover_text,
    revocation_text,
    trust,
)
from keys.note import Signer
from keys.private_file import is_private, sync_directory, write_private


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
