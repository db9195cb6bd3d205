"""
The file `custodian.json`, which tells a directory of root keys from an empty mount point.

All directories of one custodian carry the same. Where keys lie under a passphrase, it holds what
the passphrase is stretched with, and a sealed constant that tells a wrong passphrase from a damaged
key.
"""

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keys import wrap
from keys.custodians.secret_file import read_secret
from keys.errors import CustodianConfigurationError, IntegrityError

FILE_NAME = "custodian.json"
ID_BYTES = 16
#: scrypt with 128 MiB: some 0.4 s, once a process.
COST, BLOCK, PARALLEL = 2**17, 8, 1
_CHECK_CONTEXT = b"portvault/file-custodian/v1/check"

_derived: dict[tuple[str, bytes], bytes] = {}
_deriving = threading.Lock()


@dataclass(frozen=True, slots=True)
class Marker:
    """What a directory says of itself; `id` is the salt, too."""

    id: str
    n: int = 0
    r: int = 0
    p: int = 0
    check: str = ""
    v: int = 1

    def encode(self) -> bytes:
        """Return the file's bytes."""
        shown = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(shown, sort_keys=True).encode() + b"\n"


class LostMarkerError(CustodianConfigurationError):
    """A directory's marker is missing or damaged; says what to write where no copy is left."""

    def __init__(self, path: Path, what: str, *, bare: bool, line: str = "") -> None:
        self._of, self._bare = (path, what), bare
        text = (
            f"{path} {what}: bring it back from another directory of this custodian or from a "
            "copy; it holds no secret"
        )
        if bare and line:
            text += (
                ". If there is none: the keys there lie under no passphrase, so write "
                f"{line} into it"
            )
        super().__init__(text)

    def with_line(self, marker: Marker) -> "LostMarkerError":
        """Say it with the line that is enough for keys that lie under no passphrase."""
        return LostMarkerError(*self._of, bare=self._bare, line=marker.encode().decode().strip())


def decode_marker(data: bytes) -> Marker | None:
    """Read what `encode` wrote; None where it is none."""
    try:
        marker = Marker(**json.loads(data))
        bytes.fromhex(marker.check)
        if marker.v == 1 and len(bytes.fromhex(marker.id)) == ID_BYTES:
            return marker
    except (ValueError, TypeError):
        pass
    return None


def new_id() -> str:
    """Return an id that no custodian has."""
    return os.urandom(ID_BYTES).hex()


def new_marker(passphrase_file: Path | None) -> Marker:
    """Make the marker of a new custodian."""
    identity = new_id()
    if passphrase_file is None:
        return Marker(identity)
    bare = Marker(identity, COST, BLOCK, PARALLEL)
    key = _derive(bare, read_secret(passphrase_file, "passphrase"))
    check = wrap.seal(key, wrap.EMPTY, _CHECK_CONTEXT)
    return Marker(identity, COST, BLOCK, PARALLEL, check.hex())


def sealing_key(marker: Marker, passphrase_file: Path | None, place: Path) -> bytes | None:
    """Return the key that root keys are sealed under, None where there is no passphrase."""
    if not marker.n:
        if passphrase_file is not None:
            raise CustodianConfigurationError(
                f"the keys in {place} lie under no passphrase: take passphrase-file out of the "
                "custodian's address, or move them to a new directory with `portvault keys "
                "rotate-custodian`"
            )
        return None
    if passphrase_file is None:
        raise CustodianConfigurationError(
            f"the keys in {place} lie under a passphrase: add ?passphrase-file=/PATH to the "
            "custodian's address"
        )
    key = _derive(marker, read_secret(passphrase_file, "passphrase"))
    try:
        wrap.open_sealed(key, bytes.fromhex(marker.check), _CHECK_CONTEXT)
    except IntegrityError:
        raise CustodianConfigurationError(
            f"the passphrase in {passphrase_file} is not the one that the keys in {place} were "
            "made with: put the right one there; no key is lost"
        ) from None
    return key


def _derive(marker: Marker, passphrase: str) -> bytes:
    secret = passphrase.encode()
    name = marker.id, hashlib.sha256(secret).digest()
    # One at a time: each takes 128 MiB.
    with _deriving:
        if name not in _derived:
            salt = bytes.fromhex(marker.id)
            scrypt = Scrypt(salt=salt, length=wrap.KEY_BYTES, n=marker.n, r=marker.r, p=marker.p)
            _derived[name] = scrypt.derive(secret)
        return _derived[name]
