"""
Gives up the file system, by Landlock (Linux 5.13): what is not open already cannot be opened.

Where the kernel has no Landlock nothing is given up, and the limits of `child.py` are all there is.
"""

import ctypes
import os

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
#: Every right over files of Landlock's first version, from executing to making links.
_ALL_RIGHTS = (1 << 13) - 1


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


def leave_files(libc: ctypes.CDLL) -> bool:
    """Forbid this process, and those it forks, every file; return whether the system could."""
    ruleset = _Ruleset(_ALL_RIGHTS)
    size = ctypes.c_size_t(ctypes.sizeof(ruleset))
    descriptor = libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if descriptor < 0:
        return False
    try:
        # No rule is added: what is handled and has no rule is forbidden.
        return bool(libc.syscall(_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)
