"""What a process gives up before it holds a key: to leave its memory to a disk or to a debugger."""

import contextlib
import ctypes
import resource
import sys

_SET_DUMPABLE = 4


def protect_memory() -> None:
    """
    Forbid core dumps, and reading this process's memory by others of the same account.

    Python cannot wipe keys from memory, so it must not reach a disk; root reads it all the same.
    A process that is started from here by its file can be read again, and says so for itself.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
