"""Each version of Python that is claimed runs the vault: what a release of Python may change."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vault.cli import TESTED, main

ROOT = Path(__file__).parents[2]
#: The exit status of `scripts/test` where a version cannot be had.
UNAVAILABLE = 69
RUNNING = ".".join(map(str, sys.version_info[:2]))
#: The main job from the upload to the seal, by the code and by the commands; and TLS, in which each
#: Python is stricter than the one before.
STORIES = (
    "tests/integration/test_transport.py::test_tls_is_spoken_and_insisted_on",
    "tests/scenarios/test_demo.py::test_every_step_holds_on_a_file_of_ones_own",
    "tests/scenarios/test_readme.py::test_the_blocks_can_be_pasted",
)
#: Unit tests that take long to reckon, or start this project's programs over and over.
LONG = (
    *("auditor", "certificates", "cli_help", "cli_imports", "decision", "house", "merkle"),
    *("proofs", "records", "tiff_fax", "tiles", "tree", "wording"),
)


def classified() -> list[str]:
    """Return the versions that `pyproject.toml` claims."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = (re.fullmatch(r".*:: Python :: (3\.\d+)", name) for name in project["classifiers"])
    return [match[1] for match in found if match]


def test_what_is_claimed_is_said_alike() -> None:
    """The package, the vault's own warning and the README name the same versions."""
    claimed = classified()
    assert claimed == [f"{major}.{minor}" for major, minor in TESTED]
    assert f"Python {' or '.join(claimed)}" in (ROOT / "README.md").read_text()
    assert all(f"python:{v}-slim" in (ROOT / "Dockerfile").read_text() for v in claimed[:1])


@pytest.mark.parametrize(
    "words, command",
    [
        (("serve",), "service.run_server"),
        (("worker",), "service.run_worker"),
        (("doctor",), "doctor.doctor"),
    ],
)
def test_an_untested_python_is_said_and_not_refused(
    words: tuple[str, ...],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence by what a person starts and watches; on a tested version none."""

    async def nothing(_: argparse.Namespace) -> None:
        pass

    monkeypatch.setattr(f"vault.commands.{command}", nothing)
    told = []
    for tested in (TESTED, ((2, 7),)):
        monkeypatch.setattr("vault.cli.TESTED", tested)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        told.append(capsys.readouterr().err)
    assert told == [
        "",
        f"portvault: warning: this is Python {RUNNING}; Portvault is tested with Python 2.7 only\n",
    ]


@pytest.mark.parametrize("version", [v for v in classified() if v != RUNNING])
def test_another_python_runs_it(version: str, tmp_path: Path) -> None:
    """Most unit tests and the main job hold on each version besides the one that runs this."""
    command = ["scripts/test", "--python", version, f"--basetemp={tmp_path / 'tests'}"]
    command += ["tests/unit", *(f"--ignore=tests/unit/test_{name}.py" for name in LONG), *STORIES]
    # It is no worker of this run, and its environment stands beside this one's.
    inherited = {name: said for name, said in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, "PORTVAULT_VENV": sys.prefix},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d{3,} passed in ", done.stdout, re.MULTILINE), done.stdout
