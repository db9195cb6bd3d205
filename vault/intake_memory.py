"""
The memory that bodies take on their way through one process: one account, bounded for all of them.

Faxes by HTTP and mail, mails themselves, what the relay sends, exports, parts of documents that a
store gathers, and small bodies that are parsed are all counted here. Nobody waits: who finds no
room is refused at once, and comes again. Who is not known yet has a part of it only, so that
strangers keep nobody else out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vault.errors import UnavailableError

#: The part of the account that bodies of strangers may take together is one in so many.
STRANGERS_PART = 8


@dataclass(slots=True)
class Share:
    """What one body takes of the account, in bytes."""

    account: "IntakeMemory"
    size_bytes: int = 0
    of_stranger: bool = False

    def grow(self, size_bytes: int) -> None:
        """Take so many bytes more; raises `UnavailableError` where there is no room."""
        account = self.account
        full = account.taken_bytes + size_bytes > account.bytes_max
        if self.of_stranger:
            part = account.bytes_max // STRANGERS_PART
            full = full or account.strangers_bytes + size_bytes > part
        if full:
            raise UnavailableError("too much is being received and sent at once; try again")
        self._add(size_bytes)

    def give_back(self) -> None:
        """Take nothing any more."""
        self._add(-self.size_bytes)

    def _add(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self.account.taken_bytes += size_bytes
        if self.of_stranger:
            self.account.strangers_bytes += size_bytes


@dataclass(slots=True)
class IntakeMemory:
    """The account: how many bytes there may be (`intake_memory_bytes_max`), and how many are."""

    bytes_max: int
    taken_bytes: int = 0
    #: How many of them are bodies of strangers.
    strangers_bytes: int = 0

    @contextmanager
    def share(self, size_bytes: int = 0, *, of_stranger: bool = False) -> Iterator[Share]:
        """Hold so many bytes within the block; raises `UnavailableError` where there is no room."""
        share = Share(self, of_stranger=of_stranger)
        share.grow(size_bytes)
        try:
            yield share
        finally:
            share.give_back()
