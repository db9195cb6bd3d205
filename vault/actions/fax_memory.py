"""The memory that faxes take while they are received: bounded for all of a process together."""

from collections.abc import Iterator
from contextlib import contextmanager

from vault.context import Vault
from vault.errors import TooLargeError, UnavailableError


@contextmanager
def reserved(vault: Vault, declared: int | None) -> Iterator[int]:
    """Take the fax's share of memory, and give the most it may have; faxes are looked at whole."""
    size_max = vault.config.fax_bytes_max
    if declared is not None and declared > size_max:
        raise fax_too_large(size_max)
    share = size_max if declared is None else declared
    if vault.fax_desk.memory_bytes + share > vault.config.fax_memory_bytes_max:
        raise UnavailableError("too many faxes are being received; try again")
    vault.fax_desk.memory_bytes += share
    try:
        yield share
    finally:
        vault.fax_desk.memory_bytes -= share


def fax_too_large(size_max: int) -> TooLargeError:
    """Return the refusal that names the limit."""
    return TooLargeError(f"a fax may have at most {size_max} bytes")
