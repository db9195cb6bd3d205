"""What the directories of a file custodian say together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from keys import wrap
from keys.custodians.file_directory import KeyDirectory, Mark
from keys.custodians.file_marker import LostMarkerError, Marker, new_id
from keys.errors import CustodianConfigurationError, CustodianUnavailableError, IntegrityError

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
    return root if key is None else wrap.seal(key, root, _context(region, generation))


def decode(key: bytes | None, data: bytes, region: str, generation: int) -> bytes | None:
    """Return the root key; None when these bytes are none."""
    if key is not None:
        try:
            data = wrap.open_sealed(key, data, _context(region, generation))
        except IntegrityError:
            return None
    return data if len(data) == wrap.KEY_BYTES and data != wrap.EMPTY else None


def damaged(directory: KeyDirectory, region: str, generation: int) -> CustodianConfigurationError:
    """Return the error of a key whose file is none."""
    return CustodianConfigurationError(
        f"{directory.path}/{region}-{generation}.key is damaged: bring it back from another "
        "directory of this custodian or from a copy"
    )
