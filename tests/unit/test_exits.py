"""Exit statuses: 5 says that trying again may help, for one thing and for all of several."""

import pytest

from vault import errors
from vault.commands.exits import status_of, status_of_all
from vault.commands.http import IncidentError

AWAY, UNKNOWN = errors.UnavailableError("a"), errors.NotFoundError("b")
DENIED, WRONG = errors.ForbiddenError("c"), errors.InvalidRequestError("d")


@pytest.mark.parametrize(
    "failures, expected",
    [
        ([AWAY], 5),
        ([AWAY, AWAY], 5),
        ([AWAY, UNKNOWN], 3),
        ([DENIED, AWAY, DENIED], 4),
        ([DENIED, UNKNOWN], 1),
        ([WRONG, AWAY], 1),
        ([IncidentError("e"), AWAY], 1),
    ],
)
def test_of_several_failures_what_lasts_decides(failures, expected) -> None:
    """One that trying again does not mend decides; where such differ, the command failed."""
    assert status_of_all(failures) == expected


class ToldApartError(errors.VaultError):
    """An error that a script tells apart."""

    exit_status = 7


def test_an_error_may_say_its_own_status() -> None:
    """What carries a status of its own keeps it."""
    assert status_of(errors.VaultError("some")) == 1
    assert status_of(ToldApartError("some")) == 7
