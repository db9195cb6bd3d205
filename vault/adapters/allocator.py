"""
The C library's allocator, told to keep pages that will be needed again at once.

Every piece of an upload is a fresh block of some 64 to 256 KiB. By default glibc maps such a block
and unmaps it again, and the kernel clears its pages each time, which costs more than to encrypt it.
"""

import contextlib
import ctypes
import platform

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
