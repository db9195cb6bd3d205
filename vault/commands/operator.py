"""Commands for the operator on the machine: they open the vault itself, and are recorded, too."""

import os
import pwd
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from keys.ground.postgres import AWAY
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal, Role
from vault.domain.people import OPERATOR
from vault.errors import ConfigurationError, DatabaseUnavailableError, InvalidRequestError

# ---- Who runs a command, by what the kernel says. -----------------------------------------------
#
# The name in the access log is looked up from the process's real user id and from the audit login
# id, which a login sets once and `su` and `sudo` leave alone. No variable of the environment is
# believed: LOGNAME, USER, SUDO_USER and SUDO_UID are whatever somebody wrote there.

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


# ---- The database as an operator's command reaches it, and what to say when it does not. --------

_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # The account may not act in the service's role, or there is none.
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidParameterValueError,
)


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn what a database says that is away, or lets nobody in, into what to do about it."""
    try:
        yield
    except (*_REFUSED, asyncpg.ClientConfigurationError) as error:
        raise ConfigurationError(
            f"the database lets nobody in: {error}; check PORTVAULT_DATABASE"
        ) from error
    except AWAY as error:
        # A file that cannot be read or written is no database; its error names it.
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise DatabaseUnavailableError(
            f"the database does not answer ({str(error) or type(error).__name__}); start it, "
            "or check PORTVAULT_DATABASE; `portvault doctor` looks at every part"
        ) from error


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Vault]:
    """Open the vault for a command."""
    with database_errors():
        async with open_vault(config) as vault:
            yield vault


# ---- Operator. ----------------------------------------------------------------------------------


def operator(config: Config, role: str = Role.ADMIN) -> Principal:
    """Return who runs this command, by what the kernel says of the process."""
    return Principal(f"{OPERATOR}{account()}", role, frozenset(config.regions))


def regions_of(config: Config, wanted: str | None) -> tuple[str, ...]:
    """Return the region that was asked for, or all."""
    if wanted is None:
        return config.regions
    if wanted not in config.regions:
        raise InvalidRequestError(f"region must be one of {', '.join(config.regions)}")
    return (wanted,)
