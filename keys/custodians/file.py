"""
Root keys as files in one directory or several: the default, and good where the disks can be trusted.

`file:/DIRECTORY`, or `file:/ONE,/OTHER` for redundancy: a key is made in all before it is used, is
read from the first that has it, and counts as destroyed as soon as one of them says so. Destroying
overwrites and unlinks the file everywhere; what that is worth depends on the disks, which this
custodian cannot know, so its level is 0. With `?passphrase-file=/PATH` the files hold keys that are
sealed under a passphrase (scrypt, AES-256-GCM).

A key that is missing was destroyed only if its directory is there and says so (`file_marker`): an
empty mount point is "unavailable".
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from keys import wrap
from keys.custodians.calls import CallThread
from keys.custodians.file_directory import KeyDirectory, Mark
from keys.custodians.file_marker import Marker, new_marker, sealing_key
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
)

P = ParamSpec("P")
T = TypeVar("T")
PASSPHRASE = "passphrase-file"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Survey:
    """The directories that are there with their marker, and why the others are not."""

    present: list[KeyDirectory] = field(default_factory=list)
    absent: dict[KeyDirectory, str] = field(default_factory=dict)
    marker: Marker | None = None
    #: Nothing was ever made here, as far as one can see.
    new: bool = False


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

    async def last_destroyed(self, region: str) -> int:
        """Return the highest number that was destroyed."""
        return await self._run(self._last_destroyed, region)

    async def check(self) -> None:
        """Raise when a directory is missing, when others may enter it, or when two disagree."""
        await self._run(self._check)

    async def close(self) -> None:
        """Hold nothing."""

    def _check(self) -> None:
        survey = self._survey()
        for directory in survey.present:
            directory.check()
        if survey.marker is None:
            if self._passphrase_file is not None:
                new_marker(self._passphrase_file)
            self._refuse_absent({} if survey.new else survey.absent)
            return
        self._refuse_absent(survey.absent)
        key = self._sealing_key(survey.marker)
        for region, generation in sorted({k for d in survey.present for k in d.keys()}):
            if self._destroyed(survey, region, generation):
                log.warning("%s still holds %s %d, destroyed before", self, region, generation)
            else:
                self._same(survey, key, region, generation)

    def _create(self, region: str, generation: int) -> None:
        marker = self._all_present()
        key = self._sealing_key(marker)
        with self._alone(self._directories):
            survey = self._survey()
            self._refuse_absent(survey.absent)
            root = self._same(survey, key, region, generation)
            highest = max(d.mark(region).highest for d in survey.present)
            destroyed = self._destroyed(survey, region, generation)
            if destroyed or (root is None and generation <= highest):
                raise KeyDestroyedError(f"generation {generation} of {region} was destroyed")
            data = _encode(key, root or wrap.new_key(), region, generation)
            for directory in survey.present:
                directory.write_key(region, generation, data)
            self._same(survey, key, region, generation)

    def _read(self, region: str, generation: int) -> bytes:
        survey = self._survey()
        if survey.marker is None:
            raise CustodianUnavailableError(
                f"{self.name} holds no root keys: mount its disk, or bring the keys back"
            )
        if self._destroyed(survey, region, generation):
            raise KeyDestroyedError
        key, damaged = self._sealing_key(survey.marker), None
        for directory in survey.present:
            data = directory.read_key(region, generation)
            if data is not None:
                root = _decode(key, data, region, generation)
                if root is not None:
                    return root
                damaged = directory
        if damaged is not None:
            raise _damaged(damaged, region, generation)
        # What is missing here may lie where nobody can look now.
        self._refuse_absent(survey.absent)
        raise KeyDestroyedError

    def _destroy(self, region: str, generation: int) -> None:
        survey = self._survey()
        if survey.new:
            self._all_present()
            survey = self._survey()
        with self._alone(survey.present):
            mark = self._marked(survey, region, generation)
            # The mark is first: a crash after it leaves a key that is destroyed again, not used.
            # What one directory refuses is still done in the others.
            steps: list[Callable[[KeyDirectory], None]] = [
                lambda directory: directory.write_mark(region, mark),
                lambda directory: directory.erase(region, generation),
            ]
            for step in steps:
                for directory in survey.present:
                    try:
                        step(directory)
                    except OSError as error:
                        survey.absent[directory] = error.strerror or "cannot be written"
        self._refuse_absent(survey.absent)

    def _marked(self, survey: Survey, region: str, generation: int) -> Mark:
        """Return the mark that covers one more generation, and none that lives."""
        marks = [directory.mark(region) for directory in survey.present]
        found = {n for d in survey.present for name, n in d.keys() if name == region}
        # Generations whose only reachable trace is that a mark spares them.
        found |= {n for mark in marks for n in mark.living} if survey.absent else set()
        highest = max([generation, *(mark.highest for mark in marks)])
        living = {n for n in found - {generation} if n < highest}
        living -= {n for n in living if self._destroyed(survey, region, n)}
        return Mark(highest, frozenset(living))

    def _generations(self, region: str) -> list[int]:
        survey = self._survey()
        if survey.marker is None:
            self._refuse_absent({} if survey.new else survey.absent)
        found = {n for d in survey.present for name, n in d.keys() if name == region}
        return sorted(n for n in found if not self._destroyed(survey, region, n))

    def _last_destroyed(self, region: str) -> int:
        survey = self._survey()
        if survey.marker is None:
            self._refuse_absent({} if survey.new else survey.absent)
        return max((d.mark(region).highest for d in survey.present), default=0)

    def _destroyed(self, survey: Survey, region: str, generation: int) -> bool:
        return any(directory.mark(region).covers(generation) for directory in survey.present)

    def _same(
        self, survey: Survey, key: bytes | None, region: str, generation: int
    ) -> bytes | None:
        """Return the root key where it lies somewhere; raises when two directories disagree."""
        found: bytes | None = None
        for directory in survey.present:
            data = directory.read_key(region, generation)
            if data is None:
                continue
            root = _decode(key, data, region, generation)
            if root is None:
                raise _damaged(directory, region, generation)
            if found is not None and root != found:
                raise CustodianConfigurationError(
                    f"{region}-{generation}.key differs between the directories of {self.name}: "
                    "take the one that is not this vault's out of the custodian's address"
                )
            found = root
        return found

    def _survey(self) -> Survey:
        survey, missing = Survey(), []
        for directory in self._directories:
            try:
                marker = directory.marker()
            except OSError as error:
                survey.absent[directory] = error.strerror or "cannot be read"
                continue
            if marker is None:
                missing.append(directory)
                continue
            if survey.marker is not None and marker.id != survey.marker.id:
                raise CustodianConfigurationError(
                    f"{directory.path} belongs to another custodian than "
                    f"{survey.present[0].path}: take one of them out of the custodian's address"
                )
            survey.marker = marker
            survey.present.append(directory)
        survey.new = not survey.present and not survey.absent
        survey.absent |= dict.fromkeys(missing, "holds nothing")
        return survey

    def _all_present(self) -> Marker:
        """Return the marker of all directories; makes them when none holds anything yet."""
        survey = self._survey()
        # A crash may have come between the first directory and the last; without a key anywhere
        # nothing can be lost by going on.
        bare = not any(True for d in survey.present for _ in d.keys())
        reasons = set(survey.absent.values())
        if not survey.new and not (survey.absent and bare and reasons == {"holds nothing"}):
            self._refuse_absent(survey.absent)
        if survey.marker is not None and not survey.absent:
            return survey.marker
        marker = survey.marker or new_marker(self._passphrase_file)
        for directory in self._directories:
            # Of two processes at once, the marker of the first stands.
            marker = directory.begin(marker)
        return marker

    def _refuse_absent(self, absent: dict[KeyDirectory, str]) -> None:
        if absent:
            what = "; ".join(f"{d.path}: {reason}" for d, reason in absent.items())
            raise CustodianUnavailableError(
                f"the key directory cannot be used: {what}. Mount it; or, if its disk is lost, copy "
                "all of another directory of this custodian there, or take it out of the address"
            )

    def _sealing_key(self, marker: Marker) -> bytes | None:
        return sealing_key(marker, self._passphrase_file, self._directories[0].path)

    @contextlib.contextmanager
    def _alone(self, directories: list[KeyDirectory]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for directory in sorted(directories, key=lambda item: item.path):
                stack.enter_context(directory.alone())
            yield

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
    if query and (name != PASSPHRASE or not value.startswith("/")):
        raise CustodianConfigurationError(
            f"a file: custodian knows only ?{PASSPHRASE}=/PATH, not ?{name}"
        )
    # A comma is part of a name unless another absolute path follows it.
    paths = [Path(item) for item in where.replace(",/", "\0/").split("\0")]
    if not all(path.is_absolute() for path in paths):
        raise CustodianConfigurationError("write the custodian as file:/absolute/directory")
    if len({path.resolve() for path in paths}) < len(paths):
        raise CustodianConfigurationError(f"file:{where} names one directory twice")
    return paths, Path(value) if query else None


def _context(region: str, generation: int) -> bytes:
    return f"portvault/file-custodian/v1/{region}/{generation}".encode()


def _encode(key: bytes | None, root: bytes, region: str, generation: int) -> bytes:
    return root if key is None else wrap.seal(key, root, _context(region, generation))


def _decode(key: bytes | None, data: bytes, region: str, generation: int) -> bytes | None:
    """Return the root key; None when these bytes are none."""
    if key is not None:
        try:
            data = wrap.open_sealed(key, data, _context(region, generation))
        except IntegrityError:
            return None
    return data if len(data) == wrap.KEY_BYTES and data != wrap.EMPTY else None


def _damaged(directory: KeyDirectory, region: str, generation: int) -> CustodianConfigurationError:
    return CustodianConfigurationError(
        f"{directory.path}/{region}-{generation}.key is damaged: bring it back from another "
        "directory of this custodian or from a copy"
    )
