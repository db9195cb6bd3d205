"""Exit statuses: what a script learns of a command that fails, of one thing or of several."""

from collections.abc import Sequence

from keys.errors import CustodianUnavailableError, KeyDestroyedError, KeysUnavailableError
from vault import errors

FAILED, MISSING, FORBIDDEN, UNAVAILABLE = 1, 3, 4, 5
_STATUSES: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    (
        (errors.NotFoundError, errors.ShreddedError, errors.LeftBehindError, KeyDestroyedError),
        MISSING,
    ),
    ((errors.ForbiddenError, errors.UnauthenticatedError), FORBIDDEN),
    ((errors.UnavailableError, CustodianUnavailableError, KeysUnavailableError), UNAVAILABLE),
)


def status_of(error: Exception) -> int:
    """Return the exit status that an error means."""
    # What a script is to tell apart says so itself.
    own: int | None = getattr(error, "exit_status", None)
    if own is not None:
        return own
    return next((status for kinds, status in _STATUSES if isinstance(error, kinds)), FAILED)


def status_of_all(failures: Sequence[Exception]) -> int:
    """
    Return the exit status of several failures.

    `UNAVAILABLE` only where trying again may mend every one of them. Else the status of those that
    it does not mend: their common one, or `FAILED` where they differ.
    """
    lasting = {status_of(error) for error in failures} - {UNAVAILABLE}
    if not lasting:
        return UNAVAILABLE
    return lasting.pop() if len(lasting) == 1 else FAILED
