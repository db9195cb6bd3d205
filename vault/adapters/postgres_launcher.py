"""
Turn this process into a PostgreSQL program that dies with its parent and is never root.

Run as `python -I -S postgres_launcher.py UID GID PARENT PROGRAM ARGUMENT...`. A program of its own
rather than a `preexec_fn`, which may deadlock in a process with threads. It leaves no core dumps,
asks the kernel for a fast shutdown (SIGINT) when the parent dies, and, when root starts it, becomes
UID keeping a single capability: to pass directories like /root (0700) on the way to its own files.
It does not daemonize.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
# Reading past permissions is enough; containers often grant root only the wider of the two.
CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE = 2, 1
CAPABILITY_VERSION_3 = 0x20080522


def become(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Drop root for good; without either capability the paths must be open to `uid` already."""
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        bit = 1 << capability
        sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
        if libc.capset(header, sets) == 0:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


def main(arguments: list[str]) -> None:
    """Prepare and replace this process; returns never."""
    uid, gid, parent = (int(argument) for argument in arguments[:3])
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    if os.geteuid() == 0:
        become(libc, uid, gid)
    # After the change of user, which clears it. The parent may be gone before this took effect.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(arguments[3], arguments[3:])  # noqa: S606 - nothing of it goes through a shell


if __name__ == "__main__":
    main(sys.argv[1:])
