"""
Turn this process into a PostgreSQL program that dies with its parent and is never root.

Run as `python -I -S launcher.py UID GID PARENT ALLOWED PROGRAM ARGUMENT...`. A program of
its own rather than a `preexec_fn`, which may deadlock in a process with threads. It leaves no core
dumps, asks the kernel for a fast shutdown (SIGINT) when the parent dies, and, when root starts it,
becomes UID. It does not daemonize.

The program may open the files of ALLOWED, a JSON list of pairs of a path and what it gives
(`vault.sandbox.confine`), and no other, whoever it is; `null`, for tests, binds it to none. When
root starts it and the way to those files leads through directories that UID may not pass, such as
/root (0700), it keeps one capability for that, which Landlock binds to the same files. Where the
kernel has no Landlock neither holds: then the program reads what UID may, and with the capability
everything.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path

# Started without a site directory, so that nothing of the environment is imported but our own.
sys.path.append(str(Path(__file__).resolve().parents[3]))

from vault.sandbox.confine import OWN, RUN, restrict

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, PR_SET_NO_NEW_PRIVS = 28, 4, 38
# Reading past permissions is enough; containers often grant root only the wider of the two.
CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE = 2, 1
CAPABILITY_VERSION_3 = 0x20080522


def become(libc: ctypes.CDLL, uid: int, gid: int, allowed: list[tuple[str, str]] | None) -> None:
    """
    Drop root for good, and every capability but one that reaches what is `allowed`, where needed.

    Without either capability the paths must be open to `uid` already.
    """
    # Without the first one `access()` would forget the capability for whoever is not root, and
    # PostgreSQL's programs look for each other with it. Both leave all capabilities until `_keep`.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    held = _keep(libc, (1 << CAP_DAC_READ_SEARCH) | (1 << CAP_DAC_OVERRIDE), effective=False)
    if allowed is not None and all(_is_open(Path(path), kind) for path, kind in allowed):
        _keep(libc, 0)
        return
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if held & 1 << capability:
            _keep(libc, 1 << capability)
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


def _keep(libc: ctypes.CDLL, wanted: int, *, effective: bool = True) -> int:
    """Give up all capabilities but those wanted; return which of them there are."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    kept = sets[1] & wanted
    used = kept if effective else 0
    if libc.capset(header, (ctypes.c_uint32 * 6)(used, kept, used, 0, 0, 0)) != 0:
        sys.exit("capabilities cannot be given up")
    return kept


def _is_open(path: Path, kind: str) -> bool:
    """Whether this account may use its own directory, or every file of its programs, as it is."""
    if kind == OWN:
        return os.access(path, os.R_OK | os.X_OK)
    if kind == RUN:
        return os.access(path, os.R_OK | os.X_OK) and all(
            os.access(file, os.R_OK) for file in path.rglob("*")
        )
    return True


def main(arguments: list[str]) -> None:
    """Prepare and replace this process; returns never."""
    uid, gid, parent = (int(argument) for argument in arguments[:3])
    allowed = json.loads(arguments[3])
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    if os.geteuid() == 0:
        become(libc, uid, gid, allowed)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if allowed is not None:
        restrict(libc, allowed)
    # After the change of user, which clears it. The parent may be gone before this took effect.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(arguments[4], arguments[4:])  # noqa: S606 - nothing of it goes through a shell


if __name__ == "__main__":
    main(sys.argv[1:])
