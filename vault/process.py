"""
What a process sets for itself, whatever the one that started it left to it.

Before it holds a key it gives up leaving its memory to a disk or to a debugger. Signals are heard,
also where they were ignored or blocked.
"""

import contextlib
import ctypes
import resource
import signal
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


def hear_signals() -> None:
    """
    Be stopped by Ctrl-C, SIGTERM and the end of the terminal, and learn how children ended.

    Scripts and supervisors leave signals ignored or blocked to what they start. Where SIGCHLD is
    ignored, a child that failed counts as one that did not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*stop_signals(), signal.SIGCHLD})


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask to stop; `nohup` has a process outlive its terminal."""
    asking = (signal.SIGINT, signal.SIGTERM)
    stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return asking if stays else (*asking, signal.SIGHUP)
