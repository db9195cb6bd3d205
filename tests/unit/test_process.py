"""No command leaves its memory to a disk, or to others of its account."""

import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource, sys
from vault import cli
def look(args):
    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
    return 0
cli._run = look
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command", [["serve"], ["worker"], ["migrate"], ["doctor"], ["config"], ["keys", "status"]]
)
def test_a_command_is_protected_before_it_runs(command: list[str]) -> None:
    """Core dumps are off and the process is not dumpable, whatever is run."""
    said = subprocess.run([sys.executable, "-c", LOOK, *command], capture_output=True, check=True)
    assert said.stdout == b"(0, 0) 0\n"
