"""What the terminal shows: tables that fit it, and times in one form."""

import json
import os
import pty
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from vault.commands.doctor import Finding, together
from vault.commands.output import facts, show, table, time_text

ID = "4f9c2a71-08d3-4c55-9b1e-6a7d20f3c8e4"
WORDS = "the key file was overwritten and unlinked, and a copy may remain where snapshots exist"
ROWS = [
    {"verdict": "warn", "check": "custodian uk", "detail": WORDS},
    {"verdict": "ok", "check": "home", "detail": "there"},
]
ROOT = Path(__file__).parents[2]
TELLING = "import sys; from vault.commands.output import tell; tell(sys.argv[1])"
COLUMNS = ("verdict", "check", "detail")
MANY = tuple(f"column_{n}" for n in range(9))


@pytest.fixture
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Write to a terminal of a width."""
    width: int = request.param
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    return width


@pytest.mark.parametrize("terminal", [40, 60, 80, 200], indirect=True)
def test_a_table_fits_the_terminal(terminal: int) -> None:
    """No line is wider, and no word and no id is lost or cut."""
    many = dict.fromkeys(MANY, ID)
    for text, words in (
        (table(ROWS, COLUMNS), WORDS.split()),
        (table([many, many], MANY), [ID]),
        (facts({"name": WORDS, "id": ID}), [*WORDS.split(), ID]),
    ):
        assert max(map(len, text.splitlines())) <= max(terminal, len("column_0") + 2 + len(ID))
        assert set(words) <= set(text.split())


@pytest.mark.parametrize("terminal", [80], indirect=True)
def test_the_last_column_is_wrapped_below_itself(terminal: int) -> None:
    """Verdict and check stand once, and the sentence goes on where it began."""
    del terminal
    first, second, *rest = table(ROWS, COLUMNS).splitlines()
    place = first.index("detail")
    assert second.startswith("warn     custodian uk  the key file")
    assert rest[0][:place].strip() == ""
    assert rest[-1].split() == ["ok", "home", "there"]


def test_elsewhere_each_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program reads has as many lines as rows, whatever COLUMNS says."""
    monkeypatch.setenv("COLUMNS", "40")
    assert len(table(ROWS, COLUMNS).splitlines()) == 1 + len(ROWS)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 3, 1, 12, 30, 5, 250_000, UTC),
        datetime(2026, 3, 2, 1, 30, 5, tzinfo=timezone(timedelta(hours=13))),
        "2026-03-01T12:30:05.250000Z",
        "2026-03-01T12:30:05Z",
        "2026-03-01 12:30:05.25+00:00",
        "2026-03-02T01:30:05+13:00",
    ],
)
def test_times_have_one_form(value: object) -> None:
    """From the database or from the API, a time is UTC to the second."""
    assert time_text(value) == "2026-03-01T12:30:05Z"
    assert facts({"at": value}).endswith("  2026-03-01T12:30:05Z")
    assert "2026-03-01T12:30:05Z" in table([{"at": [value]}], ("at",))


def test_what_is_no_time_stays() -> None:
    """A reference, a number or a date is shown as it is."""
    for value in ("2026-03-01", "C-2026-03-01T12", 7, "2026-03-01T12:30:05Z and more"):
        assert time_text(value) == str(value)


def test_what_is_alike_is_said_once() -> None:
    """Six regions with one custodian are one finding; what differs stands alone."""
    regions = ("uk", "us", "nz", "au", "sg", "hk")
    same = [Finding(f"custodian {one}", "warn", f"no root key of {one}") for one in regions]
    other = Finding("custodian hk", "fail", "away")
    home = Finding("home", "ok", "there")
    names = ", ".join(regions)
    assert together([home, *same[:5], other, same[5]]) == [
        home,
        Finding(f"custodian {names}", "warn", f"no root key of {names}"),
        other,
    ]
    alone = Finding("store hk", "fail", "/home/objects/hk is another store")
    assert together([alone]) == [alone]
    stores = [Finding(f"store {one}", "ok", f"s3+https://s3/vault-{one}") for one in regions]
    assert together(stores) == [Finding(f"store {names}", "ok", "s3+https://s3/vault-{region}")]


def test_json_and_tables_say_no_words_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    """Times are RFC 3339 in UTC, and what is so or not is yes or no."""
    at = datetime(2026, 3, 1, 4, 5, 6, 700, tzinfo=timezone(timedelta(hours=2)))
    show({"at": at, "on": True}, "", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"at": "2026-03-01T02:05:06.000700Z", "on": True}
    assert table([{"on": True, "off": False}], ("on", "off")).split() == ["on", "off", "yes", "no"]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("kind", ["warning: ", "", "of 3 orders nothing is opened: "])
def test_what_is_said_beside_an_answer_fits_the_terminal(width: int, kind: str) -> None:
    """A warning is wrapped as an error is, on the terminal of standard error alone."""
    said = f"portvault: {kind}{WORDS}; see {ID}"
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, width))
        command = [sys.executable, "-c", TELLING, said]
        piped = subprocess.run(command, check=True, capture_output=True, text=True)
        subprocess.run(command, check=True, stderr=theirs, stdout=subprocess.DEVNULL)
        shown = os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)
    assert piped.stderr == f"{said}\n"
    assert max(map(len, shown.splitlines())) <= width
    assert shown.split() == said.split()
    assert (shown.count("\n") == 1) == (len(said) <= width)


def test_nothing_else_is_written_to_standard_error() -> None:
    """Every command says what it says beside its answer by that one function."""
    found = [
        path.name
        for path in (ROOT / "vault/commands").rglob("*.py")
        if path.name != "output.py" and "file=sys.stderr" in path.read_text()
    ]
    assert found == []
    assert "file=sys.stderr" not in (ROOT / "vault/cli.py").read_text()
