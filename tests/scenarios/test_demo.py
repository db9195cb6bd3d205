"""The demonstration, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples"


def test_every_step_holds_on_a_file_of_ones_own() -> None:
    """It ends with status 0, and nothing is left behind."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vault.trials.demo", SAMPLES / "national-id-front.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing leads to the passport any more" in done.stdout


def test_a_file_that_is_no_scan_ends_it() -> None:
    """What the vault refuses, the demonstration refuses, in one line."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vault.trials.demo", __file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("demo: the file is text/")
