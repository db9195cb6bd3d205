"""Names a file's type by libmagic, in C on hostile bytes. Runs in the sandbox alone."""

import importlib
from collections.abc import Callable
from typing import Any

UNKNOWN = "application/octet-stream"
#: Why libmagic cannot be used, as the child's answer has it.
NO_LIBRARY, NO_DATABASE = b"library", b"database"


class LibmagicError(Exception):
    """libmagic cannot be used; its argument is one of the reasons above."""


def load() -> Callable[[bytes], str]:
    """
    Load libmagic and its database of types; return what names a type by a file's first bytes.

    Called before the process gives up its files. Raises `LibmagicError`, at once or from what it
    returns.
    """
    try:
        magic = _import()
    except (ImportError, OSError):
        raise LibmagicError(NO_LIBRARY) from None
    try:
        handle = magic.Magic(mime=True)
    except magic.MagicException:
        raise LibmagicError(NO_DATABASE) from None

    def name(head: bytes) -> str:
        try:
            return str(handle.from_buffer(head)) or UNKNOWN
        except magic.MagicException:
            raise LibmagicError(NO_DATABASE) from None

    return name


def _import() -> Any:
    """Return python-magic on the system's libmagic, or else on the one that pylibmagic carries."""
    try:
        return importlib.import_module("magic")
    except ImportError:
        # In this order, which `import` statements that are sorted would not keep. And only now: it
        # also points MAGIC at its own database, which another libmagic refuses.
        importlib.import_module("pylibmagic")
        return importlib.import_module("magic")
