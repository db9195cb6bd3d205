"""How a command says that it was stopped, whatever else stops with it."""

import argparse
import asyncio
import signal

import pytest

from vault.cli import _run


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
