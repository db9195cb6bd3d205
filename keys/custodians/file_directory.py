"""
One directory of root keys.

A key is `REGION-GENERATION.key`. `REGION.destroyed` is the mark: the highest number that was
destroyed, then those below it that live. What the mark covers is destroyed, whatever lies there:
a copy of the directory that comes back revives nothing.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keys import wrap
from keys.errors import CustodianConfigurationError, CustodianUnavailableError, IntegrityError
from keys.ground.secret_files import is_private, read_secret, sync_directory, write_private

# ---- The file `custodian.json`, which tells a directory of root keys from an empty mount point.
#
# All directories of one custodian carry the same. Where keys lie under a passphrase, it holds what
# the passphrase is stretched with, and an encrypted constant that tells a wrong passphrase from a
# damaged key.

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
    check = wrap.encrypt(key, wrap.EMPTY, _CHECK_CONTEXT)
    return Marker(identity, COST, BLOCK, PARALLEL, check.hex())


def wrapping_key(marker: Marker, passphrase_file: Path | None, place: Path) -> bytes | None:
    """Return the key that root keys are wrapped under, None where there is no passphrase."""
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
        wrap.decrypt(key, bytes.fromhex(marker.check), _CHECK_CONTEXT)
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


# ---- File directory. ----------------------------------------------------------------------------

LOCK_SECONDS = 5.0
_FILE = re.compile(r"([a-z]+)-(0|[1-9][0-9]*)\.key")
_FILE_BYTES_MAX = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """Which numbers of a region were destroyed: up to `highest`, but not those in `living`."""

    highest: int = 0
    living: frozenset[int] = frozenset()

    def covers(self, generation: int) -> bool:
        """Whether this generation was destroyed."""
        return generation <= self.highest and generation not in self.living


class KeyDirectory:
    """A directory that only its owner may enter; every method may raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"KeyDirectory({self.path})"

    def marker(self) -> Marker | None:
        """Return what the directory says of itself; None when it holds nothing yet."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(20, "Not a directory", str(self.path))
        refuse_others(self.path, status, "700")
        path = self.path / FILE_NAME
        data = self._read(path)
        if data is not None:
            marker = decode_marker(data)
            if marker is None:
                raise LostMarkerError(path, "is damaged or from a later release", bare=self._bare())
            return marker
        if any(self.listed()):
            raise LostMarkerError(path, "is missing beside root keys", bare=self._bare())
        return None

    def _bare(self) -> bool:
        """Whether keys lie here, and none of them under a passphrase."""
        sizes = [self._key(*key).lstat().st_size for key in self.listed()]
        return bool(sizes) and all(size == wrap.KEY_BYTES for size in sizes)

    def begin(self, marker: Marker) -> Marker:
        """Make the directory and its marker; returns the one that stands there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.path / FILE_NAME, marker.encode(), replace=False)
        return self.marker() or marker

    def check(self) -> None:
        """Raise when others may read something here, or when it cannot be written."""
        for path in self.path.glob("*.destroyed"):
            refuse_others(path, path.lstat(), "600")
        for region, generation in self.listed():
            # What is destroyed is no key any more: it is taken away, whoever may read it.
            if not self.mark(region).covers(generation):
                path = self._key(region, generation)
                refuse_others(path, path.lstat(), "600")
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise CustodianConfigurationError(f"{self.path} must be writable for this user")

    def listed(self) -> Iterator[tuple[str, int]]:
        """Return region and generation of every key that lies here."""
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for name in names:
            if found := _FILE.fullmatch(name):
                yield found[1], int(found[2])

    def used(self) -> bool:
        """Whether a key lies here or ever was destroyed here."""
        return any(self.listed()) or any(self.path.glob("*.destroyed"))

    def read_key(self, region: str, generation: int) -> bytes | None:
        """Return what lies in the key's file; None when there is none."""
        return self._read(self._key(region, generation))

    def write_key(self, region: str, generation: int, data: bytes) -> None:
        """Write the key's file durably, where there is none."""
        write_private(self._key(region, generation), data, replace=False)

    def mark(self, region: str) -> Mark:
        """Return which numbers were destroyed."""
        path = self.path / f"{region}.destroyed"
        data = self._read(path)
        if data is None:
            return Mark()
        try:
            highest, *living = (int(word) for word in data.split())
        except ValueError:
            raise CustodianConfigurationError(
                f"{path} is damaged: bring it back from another directory of this custodian, or "
                "write into it the highest generation that was destroyed"
            ) from None
        return Mark(highest, frozenset(living))

    def write_mark(self, region: str, mark: Mark) -> None:
        """Replace the mark durably."""
        words = [mark.highest, *sorted(mark.living)]
        data = " ".join(str(word) for word in words).encode()
        write_private(self.path / f"{region}.destroyed", data, replace=True)

    def erase(self, region: str, generation: int) -> None:
        """Overwrite and unlink the key, and what a crash left of writing it."""
        path = self._key(region, generation)
        for name in (path, *self.path.glob(f".{path.name}.*")):
            with contextlib.suppress(FileNotFoundError):
                # What a link leads to may be anybody's file.
                if stat.S_ISREG(name.lstat().st_mode):
                    _overwrite(name)
                name.unlink()
        sync_directory(self.path)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing here meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path / ".lock", flags, 0o600)
        try:
            give_up_at = time.monotonic() + LOCK_SECONDS
            while not _try_lock(descriptor):
                if time.monotonic() > give_up_at:
                    raise CustodianUnavailableError(f"another process works in {self.path}")
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def _key(self, region: str, generation: int) -> Path:
        return self.path / f"{region}-{generation}.key"

    def _read(self, path: Path) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            if path.is_symlink():
                raise CustodianConfigurationError(
                    f"{path} is a symbolic link: put the file itself there"
                ) from None
            raise
        with os.fdopen(descriptor, "rb") as file:
            refuse_others(path, os.fstat(descriptor), "600")
            return file.read(_FILE_BYTES_MAX)


def _overwrite(path: Path) -> None:
    """Fill a file with other bytes, unless it is a copy of somebody else's, which may not be."""
    try:
        path.chmod(0o600)
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        log.warning("%s belongs to another user: it is removed, and not overwritten", path)
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(os.fstat(descriptor).st_size))
        file.flush()
        os.fsync(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_others(path: Path, status: os.stat_result, mode: str) -> None:
    """Raise when anybody but this user may get at the path."""
    if not is_private(status):
        raise CustodianConfigurationError(
            f"{path} holds root keys and others may read it: chmod {mode} {path}"
        )
    if status.st_uid != os.geteuid():
        raise CustodianConfigurationError(
            f"{path} holds root keys and belongs to another user: chown {os.geteuid()} {path}"
        )
