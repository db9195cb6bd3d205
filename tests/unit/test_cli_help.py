"""The help of `portvault`: every command teaches itself, and stands behind what the docs say."""

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from vault.cli import main
from vault.commands.parser import Run, make_parser
from vault.commands.signals import STATES
from vault.domain.access import BREAK_GLASS_ROLES, Action, Purpose, Role
from vault.domain.approvals import REASONS, Act
from vault.domain.certificates import SHRED_REASONS
from vault.domain.documents import Ground, Kind
from vault.domain.orders import PortType, Status
from vault.domain.regions import REGIONS
from vault.domain.text import is_reference

ROOT = Path(__file__).parents[2]
GROUPS = {
    "fax",
    "order",
    "retention",
    "hold",
    "signal",
    "approval",
    "break-glass",
    "token",
    "log",
    "keys",
}
#: What an argument that takes an id is called.
IDS = {"ID", "ORDER", "DOCUMENT", "FAX", "APPROVAL", "HOLD", "INSTRUCTION"}
COMMANDS = {
    *("serve", "worker", "migrate", "doctor", "config"),
    *(
        "order create",
        "order list",
        "order find",
        "order numbers",
        "order show",
        "order move",
        "order correct",
        "order complete",
        "order cancel",
    ),
    *("put", "get", "show", "shred", "correct", "certificate"),
    *("retention explain", "retention plan", "retention policy", "retention effect"),
    *("retention apply", "retention instruct", "retention instructions"),
    *("retention resolve", "retention withdraw", "restrict", "unrestrict"),
    *("signal list", "signal replay"),
    *("hold place", "hold list", "hold show", "hold release"),
    *("break-glass seal", "break-glass open", "break-glass list", "break-glass revoke"),
    *("approval request", "approval list", "approval approve"),
    *("approval decline", "approval withdraw"),
    *("token create", "token list", "token rename", "token revoke"),
    *("log tail", "log search", "log export", "log verify", "log witness"),
    *("log key", "log rotate-key", "log receipt", "log forget-name"),
    *("backup", "restore", "repair"),
    *("fax received", "fax drain", "fax outbound", "fax list", "fax show"),
    *("keys status", "keys seal", "keys verify", "keys rotate-custodian"),
}


def parsers(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command below with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield " ".join((*path, name)), below
                yield from parsers(below, (*path, name))


ALL = dict(parsers(make_parser()))


def run_of(name: str) -> Run:
    """Return what a command runs."""
    found: Run = ALL[name].get_default("run")
    return found


AN_ID = "4f9c2a71-08d3-4c55-9b1e-6a7d20f3c8e4"


def with_ids(line: str) -> list[str]:
    """Return the words of a command line, with an id where one is to be put."""
    return [re.sub(r"^(\$?(ORDER|DOCUMENT)|ID)$", AN_ID, word) for word in shlex.split(line)]


def written(text: str) -> list[str]:
    """Return the `portvault` command lines in a text, without what a shell does to them."""
    found = re.findall(r"(?:^|[$(`]|&& )portvault ((?:[a-z]+ ?)[^\n`)&]*)", text, re.MULTILINE)
    return [line.strip() for line in found if "COMMAND" not in line]


def test_the_commands_are_those_of_the_design() -> None:
    """Nothing is missing and nothing undocumented was added."""
    assert set(ALL) == COMMANDS | GROUPS


@pytest.mark.parametrize("name", sorted(ALL))
def test_help_works_and_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each help exits with 0, shows an example of that very command, and fits a terminal."""
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    (example,) = re.findall(r"example:\n  (?:\w+=\S+ )?portvault (.*)\n", shown)
    assert example.startswith(name)
    parsed = make_parser().parse_args(with_ids(example))
    assert parsed.run
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_is_there(name: str) -> None:
    """What a command runs can be awaited."""
    assert iscoroutinefunction(ALL[name].get_default("run"))


@pytest.mark.parametrize("name", sorted({name.partition(" ")[0] for name in ALL}))
def test_a_line_loads_the_area_that_it_names(name: str) -> None:
    """The others have their names and summaries, as the whole help has them."""
    parser = make_parser([name])
    assert parser.format_help() == make_parser().format_help()
    whole = {found: below.format_help() for found, below in ALL.items() if found.split()[0] == name}
    lazy = dict(parsers(parser))
    assert {found: lazy[found].format_help() for found in whole} == whole


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_may_stand_before_or_after(place: str) -> None:
    """`--json` and `--verbose` mean the same in front of a command and behind it."""
    options, command = ["--json", "--verbose"], ["order", "show", AN_ID]
    line = options + command if place == "before" else command + options
    args = make_parser().parse_args(line)
    assert args.json
    assert args.verbose
    assert not make_parser().parse_args(command).json


def test_the_help_says_exit_statuses_and_settings() -> None:
    """The top help names every exit status, and what clients read."""
    shown = make_parser().format_help()
    for word in ("0 done", "1 failed", "2 wrong", "3 not found", "4 not perm", "5 temporarily"):
        assert word in shown
    for variable in ("PORTVAULT_SERVER", "PORTVAULT_TOKEN", "PORTVAULT_TOKEN_FILE"):
        assert variable in shown


def test_the_help_lists_what_speaks_to_a_running_vault() -> None:
    """All modules of commands that open a session with one, but for what may do without."""
    shown = " ".join(make_parser().format_help().split())
    said = shown.partition("130 interrupted ")[2].partition(" speak to a running vault")[0]
    names = set(said.replace(" and ", ", ").split(", "))
    assert {"order", "correct", "unrestrict", "fax", "log tail", "hold"} <= names
    assert not {"token", "keys", "log verify", "backup"} & names
    sources = (ROOT / "vault/commands").glob("*.py")
    imports = re.compile(r"vault.commands.http import [^)]*\bsession")
    ours = {path.stem for path in sources if imports.search(path.read_text())}
    shown_by = {name: run_of(name).__module__.rpartition(".")[2] in ours for name in COMMANDS}
    on_the_machine = {"log verify", "log key", "log rotate-key", "log forget-name", "log witness"}
    speaking = {name for name in COMMANDS if shown_by[name]} - on_the_machine
    for group in {name.partition(" ")[0] for name in COMMANDS}:
        commands = {name for name in COMMANDS if name.partition(" ")[0] == group}
        below = commands & speaking
        expected = {group} if below == commands else below
        assert {name for name in names if name.partition(" ")[0] == group} == expected


@pytest.mark.parametrize("page", ["README.md", "docs/changelog.md", "docs/operations.md"])
def test_the_docs_spell_commands_as_they_are(page: str) -> None:
    """Every command line of the documentation is one that the parser takes."""
    lines = written((ROOT / page).read_text())
    assert len(lines) > 3
    for line in lines:
        try:
            make_parser().parse_args(with_ids(line))
        except SystemExit:
            pytest.fail(f"{page}: portvault {line}")
        assert reason_is_taken(line), line


def reason_is_taken(line: str) -> bool:
    """Whether an approval that is asked for as a line says is asked for a reason that is taken."""
    reason = re.search(r"^approval request .*--reason (\S+)", line)
    return reason is None or reason[1] in REASONS or is_reference(reason[1])


def recommended() -> Iterator[tuple[str, str]]:
    """Yield each `portvault` command line in the code's sentences, with a word for each blank."""
    for path in sorted(path for name in ("vault", "keys") for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(_filled(part) for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            # The parts of a text with blanks are walked, too, but end in the middle of a command.
            for line in re.findall(r"`portvault ([^`]+)`", text):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", " ".join(line.split())


def _filled(part: ast.expr) -> str:
    """Return a part of a text, with what a command line may have where a value comes."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    said = ast.unparse(part).strip("{}f'\"")
    if said.startswith("Act."):
        return Act[said.removeprefix("Act.")]
    return {"region": "uk", "_END[status]": "complete"}.get(said.rpartition(".")[2], AN_ID)


def test_what_a_sentence_recommends_is_taken() -> None:
    """Every command in an error or a warning is there, and one with its arguments is whole."""
    wrong, whole = [], 0
    for at, line in recommended():
        if not re.search(rf"--|\b[A-Z]+$|{AN_ID}", line):
            if line not in ALL:
                wrong.append((at, line))
            continue
        whole += 1
        try:
            make_parser().parse_args(with_ids(line.replace("%s", "uk")))
        except SystemExit as stopped:
            if stopped.code:
                wrong.append((at, line))
        if not reason_is_taken(line):
            wrong.append((at, line))
    assert wrong == []
    assert whole > 10


@pytest.mark.parametrize(
    "name, argument",
    [
        pytest.param(name, action, id=f"{name} {action.dest}")
        for name, parser in ALL.items()
        for action in parser._actions
        if action.metavar in IDS or set(action.option_strings) & {f"--{one.lower()}" for one in IDS}
    ],
)
def test_a_word_that_is_no_id_says_so(name: str, argument: argparse.Action) -> None:
    """Wherever a command takes an id, another word is refused with what an id looks like."""
    assert argument.type is not None, name
    with pytest.raises(argparse.ArgumentError, match="'ORDER' is not an id"):
        ALL[name]._get_value(argument, "ORDER")
    assert ALL[name]._get_value(argument, AN_ID.upper()) == AN_ID


@pytest.mark.parametrize(
    "line",
    [
        "",
        "order",
        "nonsense",
        "get ID",
        f"put scan.jpg --order {AN_ID} --kind nonsense",
        f"correct {AN_ID} --kind nonsense",
        "put scan.jpg --kind passport",
        "token create --role king --region uk",
        "token create --role porting --region uk --days 0",
        "token create --role porting --region uk --days -1",
        "token create --role porting --region uk --days 99999999999",
        "order list --limit x",
        "keys seal --region mars",
    ],
)
def test_wrong_usage_exits_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command is refused with 2, and the reason is on standard error alone."""
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, "error:" in shown.err) == ("", True)


#: What each option with a closed list takes, whichever command has it: the domain's words.
CLOSED: dict[str, tuple[str, ...]] = {
    "kind": tuple(Kind),
    "purpose": tuple(Purpose),
    "region": REGIONS,
    "located": REGIONS,
    "act": tuple(Act),
    "action": tuple(Action),
    "ground": tuple(Ground),
    "type": tuple(PortType),
    "format": ("jsonl", "csv"),
}
#: Where the words are a command's own.
CLOSED_THERE: dict[tuple[str, str], tuple[str, ...]] = {
    ("token create", "role"): tuple(Role),
    ("break-glass seal", "role"): tuple(BREAK_GLASS_ROLES),
    ("order list", "status"): tuple(Status),
    ("order find", "status"): tuple(Status),
    ("order move", "status"): tuple(Status),
    ("signal list", "state"): STATES,
    ("shred", "reason"): (*SHRED_REASONS, "C-7"),
    ("approval request", "reason"): (*REASONS, "C-7"),
}
#: Of the same names, and free: sentences without names, and a directory.
FREE = {
    *((name, "reason") for name in ("restrict", "unrestrict", "hold place", "hold release")),
    ("log witness", "state"),
}


def closed() -> Iterator[tuple[str, argparse.Action, tuple[str, ...]]]:
    """Yield each command's options whose values are a closed list, with that list."""
    names = {*CLOSED, *(dest for _, dest in CLOSED_THERE)}
    for name, parser in ALL.items():
        for action in parser._actions:
            here = (name, action.dest)
            if words := CLOSED_THERE.get(here) or CLOSED.get(action.dest):
                yield name, action, words
            elif not isinstance(action, argparse._SubParsersAction):
                assert action.choices is None, here
                assert action.dest not in names or here in FREE, here


def taken(parser: argparse.ArgumentParser, action: argparse.Action, text: str) -> bool:
    """Whether the parser of a command takes this value of an option."""
    try:
        parser._check_value(action, parser._get_value(action, text))
    except argparse.ArgumentError:
        return False
    return True


def test_a_closed_list_is_known_at_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of its words is taken, another is refused with all of them, before anything is asked."""
    seen = set()
    for name, action, words in closed():
        seen |= {action.dest, (name, action.dest)}
        assert [word for word in words if not taken(ALL[name], action, word)] == [], name
        if action.choices is not None:
            assert {*action.choices} - {""} == {*words}, name
        option = action.option_strings[-1:]
        with pytest.raises(SystemExit) as stopped:
            main([*name.split(), *(option or [AN_ID]), "no such word"])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert [word for word in words if word not in said and word != "C-7"] == [], (name, said)
    assert {*CLOSED, *CLOSED_THERE} <= seen


def test_several_words_may_stand_with_commas() -> None:
    """A token is for several regions and kinds; one that there is not is refused among them."""
    create = ["token", "create", "--role", "porting", "--region"]
    args = make_parser().parse_args([*create, "uk,sg", "--kind", "loa, invoice"])
    assert (args.region, args.kind) == (["uk,sg"], ["loa, invoice"])
    for wrong in (["uk,xx"], ["uk", "--kind", "loa,x"]):
        with pytest.raises(SystemExit):
            make_parser().parse_args([*create, *wrong])


def test_a_command_that_is_no_status_is_told_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for the orders of `order complete` by that word is told their status."""
    line = ["order", "list", "--status", "complete"]
    with pytest.raises(SystemExit):
        make_parser(line).parse_args(line)
    assert "ended by that command is ported" in capsys.readouterr().err
