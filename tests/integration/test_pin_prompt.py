"""The PIN of a token is asked for on a real terminal: right, wrong, none, and Ctrl-C."""

import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures_custodians import PIN, Token

PROMPT = b"PIN of the token token=portvault: "
LIMIT_SECONDS = 60.0
# The terminal becomes the one that Ctrl-C on it reaches the command from.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "vault.cli", *sys.argv[1:]])
"""


@dataclass
class Answer:
    """What a command said on its terminal, and how it ended."""

    status: int
    text: str


def ask(environment: dict[str, str], typed: bytes) -> Answer:
    """Run `portvault doctor` on a terminal and type something when the PIN is asked for."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, "doctor"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    said, waiting, until = b"", True, time.monotonic() + LIMIT_SECONDS
    try:
        while time.monotonic() < until and select.select([ours], [], [], LIMIT_SECONDS)[0]:
            try:
                said += os.read(ours, 4096)
            except OSError:  # nobody has the other end open any more
                break
            if waiting and PROMPT in said:
                waiting = False
                os.write(ours, typed)
        return Answer(process.wait(timeout=LIMIT_SECONDS), said.decode())
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def environment(token: Token, tmp_path: Path) -> dict[str, str]:
    """Give the settings of a vault whose custodian's address does not say where the PIN is."""
    address, _, _ = token.address.partition("&pin-source")
    return {
        **{name: value for name, value in os.environ.items() if "PORTVAULT" not in name},
        "PORTVAULT_HOME": str(tmp_path / "home"),
        "PORTVAULT_REGIONS": "uk",
        # So wide that no sentence is broken.
        "COLUMNS": "1000",
        "PORTVAULT_CUSTODIAN": address,
    }


def test_the_right_pin_opens_the_token(environment: dict[str, str]) -> None:
    """What is typed is not shown, and the token answers."""
    answer = ask(environment, f"{PIN}\n".encode())
    assert answer.status == 0, answer.text
    assert "has no root key of uk: `portvault serve` makes the first one" in answer.text
    assert PIN not in answer.text


def test_a_wrong_pin_is_refused_with_what_to_do(environment: dict[str, str]) -> None:
    """The command fails, says so in a line, and does not show what was typed."""
    answer = ask(environment, b"8642\n")
    assert answer.status == 1, answer.text
    assert "refused the PIN in what was typed: put the right one there" in answer.text
    assert "8642" not in answer.text


@pytest.mark.parametrize("typed", [b"\n", b"\x04"], ids=["return", "ctrl-d"])
def test_no_pin_is_not_tried(environment: dict[str, str], typed: bytes) -> None:
    """The token, which would count it as a wrong one, is not even asked."""
    for _ in range(3):
        answer = ask(environment, typed)
        assert answer.status == 1, answer.text
        assert "no PIN of the token token=portvault was typed: start again" in answer.text
    assert ask(environment, f"{PIN}\n".encode()).status == 0


def test_ctrl_c_ends_the_command(environment: dict[str, str]) -> None:
    """Whoever is asked may leave, as anywhere else, and nothing more is said."""
    answer = ask(environment, b"\x03")
    assert (answer.status, answer.text.strip()) == (130, PROMPT.decode().strip())
