"""How a command says that it was stopped, whatever else stops with it."""

import argparse
import asyncio
import signal
from collections.abc import Iterator

import pytest

from vault.cli import _run


@pytest.fixture(params=["default", "ignored", "blocked"], autouse=True)
def _inherited(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start from what a shell or a script leaves to its children, as `&` has SIGINT ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    if request.param == "ignored":
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
    if request.param == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    for number in numbers:
        signal.signal(number, before[number])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("number, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_told_by_the_status(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, expected: int, again: bool
) -> None:
    """Also where the command is cancelled a second time, by what it waited for."""

    async def command(_: argparse.Namespace) -> None:
        task = asyncio.current_task()
        assert task is not None
        signal.raise_signal(number)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if again:
                task.cancel()
            raise

    monkeypatch.setattr("vault.commands.operator.run_migrate", command)
    assert _run(argparse.Namespace(run="operator.run_migrate", verbose=False)) == expected
