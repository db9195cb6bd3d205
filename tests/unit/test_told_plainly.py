"""What a person gives by mistake is answered by a sentence, and not by the error of a library."""

import argparse

import pytest

from tests.command_line import SCAN
from vault.commands.keys import _age
from vault.commands.log import receipt
from vault.errors import InvalidRequestError


async def test_a_scan_is_no_receipt() -> None:
    """Whoever names the scan in place of its receipt is told which file to name."""
    with pytest.raises(InvalidRequestError, match="name the file that `--receipt` wrote") as told:
        await receipt(argparse.Namespace(file=SCAN, key=None))
    assert "codec" not in str(told.value)


@pytest.mark.parametrize(
    "seconds, said", [(-40.0, "0 s (the clock went back)"), (0.0, "0 s"), (90.0, "1.5 min")]
)
def test_an_age_is_never_negative(seconds: float, said: str) -> None:
    """Where the clock went back, a root key is not younger than nothing."""
    assert _age(seconds) == said
