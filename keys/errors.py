"""What can go wrong with keys. The docstring of an error is its default message."""


class KeysError(Exception):
    """The key hierarchy cannot do this."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class IntegrityError(KeysError):
    """The ciphertext, its key or its context is not what it should be."""


class KeyDestroyedError(KeysError):
    """This key has been destroyed."""


class StaleScopeError(KeysError):
    """The scope was re-keyed since its key was read; wrap again under the new one."""


class CustodianUnavailableError(KeysError):
    """The custodian of the root keys cannot be reached or refuses to serve."""


class CustodianConfigurationError(KeysError):
    """The custodian is not set up as it must be."""


class KeysUnavailableError(KeysError):
    """The rows of the key tree cannot be reached; try again."""


class RolledBackError(KeysError):
    """The database was rolled back: it names a root key that the custodian does not hold."""
