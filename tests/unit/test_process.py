"""No command leaves its memory to a disk, or to others of its account."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What sets the thresholds of glibc's allocator: the variables, the tunables, the call.
ALLOCATOR = re.compile(r"MALLOC_[A-Z_]+_\b|GLIBC_TUNABLES|glibc\.malloc|\bmallopt\b")
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


def test_the_allocator_is_set_in_one_place() -> None:
    """No script, no container file and no other module sets what `process.py` sets."""
    places = [
        *(ROOT / "vault").rglob("*.py"),
        *(ROOT / "keys").rglob("*.py"),
        *(path for path in (ROOT / "scripts").iterdir() if path.is_file()),
        ROOT / "Dockerfile",
        ROOT / "compose.yaml",
    ]
    setting = [str(path.relative_to(ROOT)) for path in places if ALLOCATOR.search(path.read_text())]
    assert setting == ["vault/adapters/process.py"]
