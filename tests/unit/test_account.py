"""Who runs a command is what the kernel says, whatever the environment claims."""

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vault
from vault.commands.operator import NOBODY_LOGGED_IN, account, operator
from vault.config.settings import Config

#: Where programs look for a name that anybody may have written there.
CLAIMS = ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER", "SUDO_UID")
ROOT = Path(vault.__file__).parents[1]
SOURCES = [path for room in ("vault", "keys") for path in (ROOT / room).rglob("*.py")]
_ASKED = re.compile(rf"getuser|getlogin|(environ|getenv)\b.{{0,8}}[\"'](?:{'|'.join(CLAIMS)})[\"']")

_SAYS = "import os; from vault.commands.operator import account"


def test_no_variable_names_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them say so, the log does not say that it was the chief executive."""
    before = operator(Config()).id
    for name in CLAIMS:
        monkeypatch.setenv(name, "chief.executive")
    assert operator(Config()).id == before
    assert "chief" not in before
    own = pwd.getpwuid(os.getuid()).pw_name
    assert before.partition("/")[0] == f"operator:{own}"


def test_nothing_asks_the_environment_who_it_is() -> None:
    """No module looks a person's name up where anybody may have written it."""
    found = [path.name for path in SOURCES if _ASKED.search(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "login, said",
    [
        (str(NOBODY_LOGGED_IN), ""),
        ("", ""),
        ("no number", ""),
        (str(os.getuid()), ""),
        ("4294967290", "/uid-4294967290"),
    ],
)
def test_who_logged_in_stands_behind_the_account(tmp_path: Path, login: str, said: str) -> None:
    """Somebody who became another account is named with it; where nobody did, the account is."""
    kept = tmp_path / "loginuid"
    kept.write_text(login)
    own = pwd.getpwuid(os.getuid()).pw_name
    assert account(kept) == own + said
    assert account(tmp_path / "none") == own


@pytest.mark.parametrize("uid", [65534, 4242424])
def test_another_account_is_another_name(uid: int) -> None:
    """The real user id decides, whoever it is, known to the machine or not."""
    if os.getuid() != 0:
        uid = os.getuid()
    said = subprocess.run(
        [sys.executable, "-c", f"{_SAYS}; os.setuid({uid}); print(account())"],
        env={**os.environ, "LOGNAME": "chief.executive", "USER": "chief.executive"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    try:
        wanted = pwd.getpwuid(uid).pw_name
    except KeyError:
        wanted = f"uid-{uid}"
    assert said.partition("/")[0] == wanted
