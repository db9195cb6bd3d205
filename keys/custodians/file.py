"""
Root keys as files in one directory or several: the default, good where the disks can be trusted.

`file:/DIRECTORY`, or `file:/ONE,/OTHER` for redundancy: a key is made in all before it is used, is
read from the first that has it, and counts as destroyed as soon as one of them says so. Destroying
overwrites and unlinks the file everywhere; what that is worth depends on the disks, which this
custodian cannot know, so its level is 0. With `?passphrase-file=/PATH` the files hold keys that are
encrypted under a passphrase (scrypt, AES-256-GCM).

A key that is missing was destroyed only if its directory is there and says so (`file_marker`): an
empty mount point is "unavailable".
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from keys import wrap
from keys.custodians.calls import CallThread
from keys.custodians.file_directory import (
    KeyDirectory,
    LostMarkerError,
    Mark,
    Marker,
    new_id,
    new_marker,
    wrapping_key,
)
from keys.errors import (
    CUSTODIAN_CHANGED,
    CustodianConfigurationError,
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
)
from keys.ground.secret_files import read_secret

# ---- What the directories of a file custodian say together. -------------------------------------

NOTHING = "holds nothing"


@dataclass(slots=True)
class Survey:
    """The directories that are there with their marker, and why the others are not."""

    name: str
    present: list[KeyDirectory] = field(default_factory=list)
    absent: dict[KeyDirectory, str] = field(default_factory=dict)
    marker: Marker | None = None

    @property
    def new(self) -> bool:
        """Whether nothing was ever made here, as far as one can see."""
        return not self.present and set(self.absent.values()) <= {NOTHING}

    @property
    def may_begin(self) -> bool:
        """
        Whether directories that hold nothing may be begun.

        They may where all are new, and after a crash between the first and the last: without a key
        anywhere, nothing can be lost by going on.
        """
        bare = not any(directory.used() for directory in self.present)
        return bare and set(self.absent.values()) <= {NOTHING}

    def refuse_absent(self) -> None:
        """Raise when a directory is not there."""
        if self.absent:
            what = "; ".join(f"{d.path}: {reason}" for d, reason in self.absent.items())
            raise CustodianUnavailableError(
                f"the key directory cannot be used: {what}. Mount it; or, if its disk is lost, "
                "copy all of another directory of this custodian there, or take it out of the "
                "custodian's address"
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing; what cannot be locked is absent from then on."""
        with contextlib.ExitStack() as stack:
            for directory in sorted(self.present, key=lambda item: item.path):
                try:
                    stack.enter_context(directory.alone())
                except OSError as error:
                    self.lose(directory, error)
            yield

    def lose(self, directory: KeyDirectory, error: OSError) -> None:
        """Count a directory as absent."""
        self.absent[directory] = error.strerror or "cannot be used"
        if directory in self.present:
            self.present.remove(directory)

    def listed(self) -> list[tuple[str, int]]:
        """Return region and generation of every key file."""
        return sorted({key for directory in self.present for key in directory.listed()})

    def of_region(self, region: str) -> set[int]:
        """Return the generations whose file lies somewhere."""
        return {generation for name, generation in self.listed() if name == region}

    def destroyed(self, region: str, generation: int) -> bool:
        """Whether any directory says that the generation was destroyed."""
        return any(directory.mark(region).covers(generation) for directory in self.present)

    def highest(self, region: str) -> int:
        """Return the highest number that was destroyed."""
        return max((directory.mark(region).highest for directory in self.present), default=0)

    def mark_with(self, region: str, generation: int) -> Mark:
        """Return the mark that covers one more generation, and none that lives."""
        found = self.of_region(region)
        if self.absent:
            # Of what lies elsewhere only, a mark here is the only trace.
            found |= {n for directory in self.present for n in directory.mark(region).living}
        highest = max(generation, self.highest(region))
        living = {n for n in found - {generation} if n < highest}
        return Mark(highest, frozenset(n for n in living if not self.destroyed(region, n)))

    def root_key(self, key: bytes | None, region: str, generation: int) -> bytes | None:
        """Return the root key where it lies somewhere; raises when two directories disagree."""
        found: bytes | None = None
        for directory in self.present:
            data = directory.read_key(region, generation)
            if data is None:
                continue
            root = decode(key, data, region, generation)
            if root is None:
                raise damaged(directory, region, generation)
            if found is not None and root != found:
                raise CustodianConfigurationError(
                    f"{region}-{generation}.key differs between the directories of {self.name}: "
                    "take the one that is not this vault's out of the custodian's address"
                )
            found = root
        return found


def survey(name: str, directories: Sequence[KeyDirectory], known_id: str | None = None) -> Survey:
    """
    Look at every directory; `known_id` is the custodian's, where it was seen before.

    Raises `CustodianConfigurationError` where a marker is lost, or another custodian's.
    """
    found, lost = Survey(name), list[LostMarkerError]()
    for directory in directories:
        try:
            marker = directory.marker()
        except LostMarkerError as error:
            lost.append(error)
            continue
        except OSError as error:
            found.lose(directory, error)
            continue
        if marker is None:
            found.absent[directory] = NOTHING
            continue
        if found.marker is not None and marker.id != found.marker.id:
            raise CustodianConfigurationError(
                f"{directory.path} belongs to another custodian than {found.present[0].path}: take "
                "one of them out of the custodian's address"
            )
        found.marker = marker
        found.present.append(directory)
    if lost:
        raise lost[0].with_line(found.marker or Marker(known_id or new_id()))
    return found


def _context(region: str, generation: int) -> bytes:
    return f"portvault/file-custodian/v1/{region}/{generation}".encode()


def encode(key: bytes | None, root: bytes, region: str, generation: int) -> bytes:
    """Return what lies in a key's file; `key` is what the passphrase gave, if there is one."""
    return root if key is None else wrap.encrypt(key, root, _context(region, generation))


def decode(key: bytes | None, data: bytes, region: str, generation: int) -> bytes | None:
    """Return the root key; None when these bytes are none."""
    if key is not None:
        try:
            data = wrap.decrypt(key, data, _context(region, generation))
        except IntegrityError:
            return None
    return data if len(data) == wrap.KEY_BYTES and data != wrap.EMPTY else None


def damaged(directory: KeyDirectory, region: str, generation: int) -> CustodianConfigurationError:
    """Return the error of a key whose file is none."""
    return CustodianConfigurationError(
        f"{directory.path}/{region}-{generation}.key is damaged: bring it back from another "
        "directory of this custodian or from a copy"
    )


# ---- File. --------------------------------------------------------------------------------------

P = ParamSpec("P")
T = TypeVar("T")
PARAMETER = "passphrase-file"

log = logging.getLogger(__name__)


class FileCustodian:
    """Root keys in directories on local disks."""

    destroy_level = 0
    destroy_promise = (
        "The key file was overwritten and unlinked; on flash, on a copy-on-write filesystem or "
        "where snapshots or backups of the directory exist, a copy may remain."
    )

    def __init__(self, place: str) -> None:
        paths, self._passphrase_file = _parse(place)
        self._directories = [KeyDirectory(path) for path in paths]
        #: The id of the custodian that was seen here first.
        self._seen_id: str | None = None
        self._calls = CallThread(f"the key directory {', '.join(map(str, paths))}")

    def __repr__(self) -> str:
        return f"FileCustodian({self.name})"

    @property
    def name(self) -> str:
        """Return the address, without what opens it."""
        return f"file:{','.join(str(directory.path) for directory in self._directories)}"

    async def create(self, region: str, generation: int) -> None:
        """Make the key durably in every directory; refuses what a mark reaches."""
        await self._run(self._create, region, generation)

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Encrypt a key under the generation."""
        return wrap.wrap(await self._run(self._read, region, generation), key, context)

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt what `wrap` made."""
        return wrap.unwrap(await self._run(self._read, region, generation), wrapped, context)

    async def destroy(self, region: str, generation: int) -> None:
        """Mark the number as destroyed everywhere, then overwrite and unlink the key everywhere."""
        await self._run(self._destroy, region, generation)

    async def generations(self, region: str) -> list[int]:
        """Return the living generations."""
        return await self._run(self._generations, region)

    async def returned(self, region: str) -> list[int]:
        """Return the generations whose file lies in a directory although a mark covers them."""
        return await self._run(self._returned, region)

    async def last_destroyed(self, region: str) -> int:
        """Return the highest number that was destroyed."""
        return await self._run(self._last_destroyed, region)

    async def check(self) -> None:
        """Raise when a directory is missing, when others may enter it, or when two disagree."""
        await self._run(self._check)

    async def close(self) -> None:
        """Hold nothing."""

    def _check(self) -> None:
        found = self._survey()
        if self._passphrase_file is not None:
            read_secret(self._passphrase_file, "passphrase")
        if found.new:
            return
        found.refuse_absent()
        for directory in found.present:
            directory.check()
        key = self._wrapping_key(found)
        for region, generation in found.listed():
            if found.destroyed(region, generation):
                log.warning("%s still holds the destroyed %s-%d.key", self, region, generation)
            else:
                found.root_key(key, region, generation)

    def _create(self, region: str, generation: int) -> None:
        found = self._begun()
        key = self._wrapping_key(found)
        with found.alone():
            found.refuse_absent()
            destroyed = found.destroyed(region, generation)
            root = None if destroyed else found.root_key(key, region, generation)
            if root is None and generation <= found.highest(region):
                raise KeyDestroyedError(f"generation {generation} of {region} was destroyed")
            data = encode(key, root or wrap.new_key(), region, generation)
            for directory in found.present:
                directory.write_key(region, generation, data)
            found.root_key(key, region, generation)

    def _read(self, region: str, generation: int) -> bytes:
        found = self._survey()
        if found.marker is None:
            raise CustodianUnavailableError(
                f"{self.name} holds no root keys: mount its disk, or bring the keys back; "
                f"{CUSTODIAN_CHANGED}"
            )
        if found.destroyed(region, generation):
            raise KeyDestroyedError
        key, broken = self._wrapping_key(found), None
        for directory in found.present:
            data = directory.read_key(region, generation)
            if data is not None:
                root = decode(key, data, region, generation)
                if root is not None:
                    return root
                broken = directory
        if broken is not None:
            raise damaged(broken, region, generation)
        # What is missing here may lie where nobody can look now.
        found.refuse_absent()
        raise KeyMissingError(self.name, region, generation)

    def _destroy(self, region: str, generation: int) -> None:
        found = self._survey()
        if found.new:
            found = self._begun()
        with found.alone():
            mark = found.mark_with(region, generation)
            # The mark is first: a crash after it leaves a key that is destroyed again, not used.
            # What one directory refuses is still done in the others.
            steps: list[Callable[[KeyDirectory], None]] = [
                lambda directory: directory.write_mark(region, mark),
                lambda directory: directory.erase(region, generation),
            ]
            for step in steps:
                for directory in list(found.present):
                    try:
                        step(directory)
                    except OSError as error:
                        found.lose(directory, error)
        found.refuse_absent()

    def _generations(self, region: str) -> list[int]:
        found = self._seen()
        return sorted(n for n in found.of_region(region) if not found.destroyed(region, n))

    def _returned(self, region: str) -> list[int]:
        found = self._seen()
        return sorted(n for n in found.of_region(region) if found.destroyed(region, n))

    def _last_destroyed(self, region: str) -> int:
        return self._seen().highest(region)

    def _survey(self) -> Survey:
        """Look; raises where all that was here before is gone, or is another custodian's."""
        found = survey(self.name, self._directories, self._seen_id)
        if self._seen_id is None:
            self._seen_id = found.marker.id if found.marker else None
        elif found.marker is None:
            found.refuse_absent()
        elif found.marker.id != self._seen_id:
            raise CustodianUnavailableError(
                f"{self.name} is another custodian than it was before: is its disk mounted?"
            )
        return found

    def _seen(self) -> Survey:
        """Look; raises when there is something and none of it can be seen."""
        found = self._survey()
        if not found.present and not found.new:
            found.refuse_absent()
        return found

    def _begun(self) -> Survey:
        """Look, after all directories were made where none holds anything yet."""
        found = self._survey()
        if not found.absent:
            return found
        if not found.may_begin:
            found.refuse_absent()
        marker = found.marker or new_marker(self._passphrase_file)
        for directory in self._directories:
            # Of two processes at once, the marker of the first stands.
            marker = directory.begin(marker)
        return self._survey()

    def _wrapping_key(self, found: Survey) -> bytes | None:
        place = self._directories[0].path
        marker = found.marker or Marker("")
        return wrapping_key(marker, self._passphrase_file, place)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._calls.run(function, *args, **kwargs)
        except OSError as error:
            raise CustodianUnavailableError(
                f"the key directory cannot be used: {error.filename or self.name}: {error.strerror}"
            ) from error


def _parse(place: str) -> tuple[list[Path], Path | None]:
    where, _, query = place.partition("?")
    name, _, value = query.partition("=")
    if query and (name != PARAMETER or not value.startswith("/")):
        raise CustodianConfigurationError(
            f"a file: custodian knows only ?{PARAMETER}=/PATH, not ?{name}"
        )
    # A comma is part of a name unless another absolute path follows it.
    paths = [Path(item) for item in where.replace(",/", "\0/").split("\0")]
    if not all(path.is_absolute() for path in paths):
        raise CustodianConfigurationError("write the custodian as file:/absolute/directory")
    if len({path.resolve() for path in paths}) < len(paths):
        raise CustodianConfigurationError(f"file:{where} names one directory twice")
    return paths, Path(value) if query else None
