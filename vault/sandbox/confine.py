"""
Gives up what a process can give up by itself: files by Landlock, and capabilities.

Where the kernel has no Landlock no file is given up, and the limits of `child.py` are all there is.
"""

import ctypes

from vault.sandbox.landlock import restrict

#: linux/capability.h: the version whose sets have 64 bits, in two parts.
_CAPABILITIES_VERSION = 0x20080522


def leave_outside(libc: ctypes.CDLL) -> bool:
    """
    Forbid this process, and those it forks, every file; return whether the system could.

    Called again by a forked one it also forbids to trace, or signal, the one it was forked by.
    """
    return restrict(libc)


def leave_capabilities(libc: ctypes.CDLL) -> None:
    """Drop every capability, root's and those of a user namespace."""
    head = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    libc.capset(head, (ctypes.c_uint32 * 6)())
