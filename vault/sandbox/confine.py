"""
Gives up what a process can give up by itself: files by Landlock (Linux 5.13), and capabilities.

Landlock of later kernels also takes TCP (6.7) and signals to processes outside (6.12). Where the
kernel has none nothing of it is given up, and the limits of `child.py` are all there is.
"""

import ctypes
import os

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
#: How many rights over files each version of Landlock knows, from executing to device controls.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _BIND_AND_CONNECT = 4, 3
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 3
#: linux/capability.h: the version whose sets have 64 bits, in two parts.
_CAPABILITIES_VERSION = 0x20080522


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def leave_outside(libc: ctypes.CDLL) -> bool:
    """
    Forbid this process, and those it forks, every file; return whether the system could.

    Called again by a forked one it also forbids to trace, or signal, the one it was forked by.
    """
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return False
    ruleset = _Ruleset(
        (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1,
        _BIND_AND_CONNECT if version >= _TCP_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    size = ctypes.c_size_t(ctypes.sizeof(ruleset))
    descriptor = libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if descriptor < 0:
        return False
    try:
        # No rule is added: what is handled and has no rule is forbidden.
        return bool(libc.syscall(_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)


def leave_capabilities(libc: ctypes.CDLL) -> None:
    """Drop every capability, root's and those of a user namespace."""
    head = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    libc.capset(head, (ctypes.c_uint32 * 6)())
