"""
Gives up what a process can give up by itself: files by Landlock, and capabilities.

Where the kernel has no Landlock no file is given up, and the limits of `child.py` are all there is.
"""

import ctypes
import os
from collections.abc import Iterable

# ---- Landlock (Linux 5.13): a process gives up all files but those it names, for itself and its
# children.
#
# Later kernels also take TCP (6.7) and signals to processes outside (6.12). No capability and no
# account lifts it. It does not govern what is open already, what `stat` tells, `chdir`, or
# connections to sockets in the file system. Imported by programs that run without a site
# directory: standard library only.

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _BENEATH = 1, 1
#: How many rights over files each version of Landlock knows, from executing to device controls.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _BIND_AND_CONNECT = 4, 3
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 3

# linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 9
_REFER, _TRUNCATE = 1 << 13, 1 << 14
#: The rights that a rule for a single file may give.
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

#: What a rule may give: to read, also to write what is there, to run as a program, and to keep
#: files as one's own, none of which may be run.
READ, WRITE, RUN, OWN = "read", "write", "run", "own"
_RIGHTS = {
    READ: _READ_FILE | _READ_DIR,
    WRITE: _READ_FILE | _READ_DIR | _WRITE_FILE,
    RUN: _READ_FILE | _READ_DIR | _EXECUTE,
    OWN: _READ_FILE
    | _READ_DIR
    | _WRITE_FILE
    | _TRUNCATE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SOCK
    | _REFER,
}


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_version(libc: ctypes.CDLL) -> int:
    """Return the version that the kernel has; 0 or less where it has none."""
    version: int = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    return version


def restrict(libc: ctypes.CDLL, allowed: Iterable[tuple[str, str]] = ()) -> bool:
    """
    Forbid this process every file but those `allowed`; return whether the kernel could.

    `allowed` names paths, each with what it gives upon the file or all that is below the directory;
    a path that is not there gives nothing. The process must be unable to gain privileges.
    """
    version = landlock_version(libc)
    if version < 1:
        return False
    handled = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    ruleset = _Ruleset(
        handled,
        _BIND_AND_CONNECT if version >= _TCP_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    size = ctypes.c_size_t(ctypes.sizeof(ruleset))
    descriptor = libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if descriptor < 0:
        return False
    try:
        # What is handled and has no rule is forbidden.
        for path, kind in allowed:
            _allow(libc, descriptor, path, _RIGHTS[kind] & handled)
        return bool(libc.syscall(_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{place}"):  # noqa: PTH112 - pathlib is slow to import
            rights &= _OF_A_FILE
        rule = _Beneath(rights, place)
        libc.syscall(_ADD_RULE, ruleset, _BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)


# ---- Confine. -----------------------------------------------------------------------------------

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
