"""How a command says that it was stopped, whatever was left to it and whatever else stops."""

import argparse
import asyncio
import signal
import subprocess
from collections.abc import Iterator

import pytest

from vault.adapters.process import stop_signals
from vault.cli import _run

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@pytest.fixture(params=["default", "ignored", "blocked"], autouse=True)
def inherited(request: pytest.FixtureRequest) -> Iterator[str]:
    """Start from what a shell or a script leaves to its children, as `&` has SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    if request.param == "ignored":
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
    if request.param == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    yield request.param
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)
    for number in NUMBERS:
        signal.signal(number, before[number])


def stopped_by(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *, again: bool) -> int:
    """Return the status of a command that gets a signal and then waits a little."""

    async def command(_: argparse.Namespace) -> None:
        task = asyncio.current_task()
        assert task is not None
        signal.raise_signal(number)
        try:
            await asyncio.sleep(0.2 if number not in stop_signals() else 60)
        except asyncio.CancelledError:
            if again:
                task.cancel()
            raise

    return _run(argparse.Namespace(run=command, serves=False, verbose=False))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("number, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_told_by_the_status(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, expected: int, again: bool
) -> None:
    """Also where the command is cancelled a second time, by what it waited for."""
    assert stopped_by(monkeypatch, number, again=again) == expected


def test_the_end_of_the_terminal_stops_unless_nohup_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, inherited: str
) -> None:
    """What is half done is put away, and `nohup portvault serve &` goes on."""
    expected = 0 if inherited == "ignored" else 128 + signal.SIGHUP
    assert stopped_by(monkeypatch, signal.SIGHUP, again=False) == expected


def test_how_a_child_ended_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump that failed is no dump, also below a supervisor that waits for no child."""
    statuses = []

    async def command(_: argparse.Namespace) -> None:
        child = await asyncio.create_subprocess_exec("false")
        statuses.append(await child.wait())
        statuses.append(await asyncio.to_thread(subprocess.call, ["false"]))

    assert _run(argparse.Namespace(run=command, serves=False, verbose=False)) == 0
    assert statuses == [1, 1]
