"""What a process is told of itself: allocator, collector, dumps."""

import contextlib
import ctypes
import gc
import platform
import resource
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from vault.errors import ConfigurationError

# ---- The C library's allocator, told to keep pages that will be needed again at once. -----------
#
# Every piece of an upload is a fresh block of some 64 to 256 KiB. By default glibc maps such a
# block and unmaps it again, and the kernel clears its pages each time, which costs more than to
# encrypt it.

#: <malloc.h>, and how large a block must be to be mapped on its own, or given back.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024
TRIM_THRESHOLD_BYTES = 64 * 1024 * 1024
TOP_PAD_BYTES = 4 * 1024 * 1024


def keep_pages() -> None:
    """Set the thresholds of this process, where its allocator is glibc's; elsewhere do nothing."""
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        mallopt(_TOP_PAD, TOP_PAD_BYTES)


# ---- Python's collector of cycles, told that what a server starts with stays until its end. -----

#: So many objects more than before, and it looks again; by default 700, a few requests' worth.
YOUNG_MAX = 10_000
#: Every so many looks at the young it looks at the middle-aged, and so on.
MIDDLE_EVERY = OLD_EVERY = 10


def look_less() -> None:
    """Leave alone what there is now, such as every module, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, MIDDLE_EVERY, OLD_EVERY)


# ---- Threads that run from the start: none has to be started when the system has none to give.


def running_threads(count: int, name: str) -> ThreadPoolExecutor:
    """
    Return an executor whose threads all run already.

    By itself it starts each at the first call that finds no other idle, and keeps the call even
    where that fails: it would run at a later one, after whoever made it has given up. Raises
    `ConfigurationError` where the system does not have so many.
    """
    made, together = ThreadPoolExecutor(count, name), threading.Barrier(count + 1)
    try:
        for _ in range(count):
            made.submit(together.wait)
    except RuntimeError:
        together.abort()
        made.shutdown(wait=False, cancel_futures=True)
        raise ConfigurationError(
            f"the {count} threads {name!r} cannot be started: raise the limit of tasks "
            "(TasksMax= in a systemd unit, ulimit -u in a shell)"
        ) from None
    together.wait()
    return made


# ---- What a process sets for itself, whatever the one that started it left to it. ---------------
#
# Before it holds a key it gives up leaving its memory to a disk or to a debugger. Signals are
# heard, also where they were ignored or blocked.

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
