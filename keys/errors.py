"""What can go wrong with keys. The docstring of an error is its default message."""

from collections.abc import Sequence

CUSTODIAN_CHANGED = (
    "where `custodian` was changed, set `custodian_before` to the one that holds the keys"
)


class KeysError(Exception):
    """The key hierarchy cannot do this."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class IntegrityError(KeysError):
    """The ciphertext, its key or its context is not what it should be."""


class KeyDestroyedError(KeysError):
    """This key has been destroyed."""


class KeyMissingError(KeysError):
    """The custodian holds no such root key, and does not say that it was destroyed."""

    def __init__(self, custodian: str, region: str, generation: int) -> None:
        super().__init__(
            f"{custodian} holds no root key of generation {generation} of {region} and does not "
            "say that it was destroyed: bring it back, or see that it is the right custodian; "
            f"{CUSTODIAN_CHANGED}"
        )


class ForeignKeysError(KeysError):
    """The custodian holds root keys of another database, so no new tree is begun beside them."""

    def __init__(self, custodian: str, region: str, generations: Sequence[int]) -> None:
        super().__init__(
            f"{custodian} holds root keys of {region} (generation "
            f"{', '.join(map(str, generations))}) that this database knows nothing of: is the "
            "database's disk mounted, and is it the right one? A lost database is brought back "
            "by `portvault restore`; a new vault needs a custodian of its own"
        )


class StaleScopeError(KeysError):
    """The scope was re-keyed since its key was read; wrap again under the new one."""


class CustodianUnavailableError(KeysError):
    """The custodian of the root keys cannot be reached or refuses to serve."""


class CustodianConfigurationError(KeysError):
    """The custodian is not set up as it must be."""


class KeysUnavailableError(KeysError):
    """The rows of the key tree cannot be reached; try again."""


class MirrorUnavailableError(KeysError):
    """The tree's copy in the bucket cannot be written or read."""


class StandbyBehindError(KeysError):
    """A standby that could be promoted has not replayed the seal yet."""


class SealOverdueError(KeysError):
    """What was shredded has been waiting for a seal for too long."""


class RestoreRefusedError(KeysError):
    """Restoring now would lose data."""


class RolledBackError(KeysError):
    """The database was rolled back; stop every server, then run `portvault restore`."""
