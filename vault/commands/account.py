"""
Who runs a command, by what the kernel says.

The name in the access log is looked up from the process's real user id and from the audit login id,
which a login sets once and `su` and `sudo` leave alone. No variable of the environment is believed:
LOGNAME, USER, SUDO_USER and SUDO_UID are whatever somebody wrote there.
"""

import os
import pwd
import re
from pathlib import Path

LOGIN_UID = Path("/proc/self/loginuid")
#: The kernel's word for a process that no login began.
NOBODY_LOGGED_IN = 2**32 - 1
# What account names look like (useradd(8)); others are known by their number.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")


def account(login_uid: Path = LOGIN_UID) -> str:
    """
    Return who runs this: the account, or `ACCOUNT/LOGIN` where somebody logged in as another.

    The account comes first, because that is certain: where no login set it, an unprivileged process
    may set its own login id once, and so put another name behind its own, but never in front.
    """
    real, login = os.getuid(), _login_uid(login_uid)
    if login is None or login == real:
        return _name(real)
    return f"{_name(real)}/{_name(login)}"


def _login_uid(path: Path) -> int | None:
    """Return the user id that logged in; None where nobody did, or the kernel does not say."""
    try:
        uid = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if uid == NOBODY_LOGGED_IN else uid


def _name(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
    return name if _NAME.fullmatch(name) else f"uid-{uid}"
