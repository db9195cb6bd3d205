"""
The memory that bodies take on their way through one process: one account, bounded for all of them.

Faxes by HTTP and mail, mails themselves, what the relay sends, exports, parts of documents that a
store gathers, and small bodies that are parsed are all counted here. Nobody waits: who finds no
room is refused at once, and comes again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vault.errors import UnavailableError


@dataclass(slots=True)
class Share:
    """What one body takes of the account, in bytes."""

    account: "IntakeMemory"
    size_bytes: int = 0

    def grow(self, size_bytes: int) -> None:
        """Take so many bytes more; raises `UnavailableError` where there is no room."""
        if self.account.taken_bytes + size_bytes > self.account.bytes_max:
            raise UnavailableError("too much is being received and sent at once; try again")
        self.account.taken_bytes += size_bytes
        self.size_bytes += size_bytes


@dataclass(slots=True)
class IntakeMemory:
    """The account: how many bytes there may be (`intake_memory_bytes_max`), and how many are."""

    bytes_max: int
    taken_bytes: int = 0

    @contextmanager
    def share(self, size_bytes: int = 0) -> Iterator[Share]:
        """Hold so many bytes within the block; raises `UnavailableError` where there is no room."""
        share = Share(self)
        share.grow(size_bytes)
        try:
            yield share
        finally:
            self.taken_bytes -= share.size_bytes
