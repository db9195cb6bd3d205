"""The database as an operator's command reaches it, and what to say when it does not."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from keys.ground.postgres import AWAY
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import ConfigurationError, DatabaseUnavailableError

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
