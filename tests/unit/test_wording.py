"""What the terminal says of a problem: no header, no address, no query."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vault.cli import _say
from vault.commands.arguments import make_parser
from vault.commands.wording import _WORDS, worded
from vault.domain.access import PurposeError
from vault.errors import InvalidRequestError

ROOT = Path(__file__).parents[2]
#: Headers have capitals on both sides of a hyphen.
HTTP = re.compile(
    r"\b[A-Z][A-Za-z0-9]+-[A-Z][A-Za-z]+\b|[?&]\w+=|Authorization|Bearer|/v1/"
    r"|\b(GET|POST|PATCH|DELETE) /"
)
#: Names of HTTP headers that are no parameter, and words that look like a header.
ELSEWHERE = {"vault/web/console", "vault/auditor.py", "vault/mail", "vault/sandbox"}


def said() -> Iterator[tuple[str, str]]:
    """Yield each text of a raise, of a problem, and of what an error says by default."""
    for path in sorted(path for name in ("vault", "keys") for path in (ROOT / name).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if any(name.startswith(one) for one in ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                yield name, ast.get_docstring(node) or ""
            raised = isinstance(node, ast.Raise) and node.exc is not None
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "problem"
            # A header that is looked at is named in the text that its parser makes.
            called = called or (
                isinstance(node, ast.Call) and getattr(node.func, "id", "") == "header_id"
            )
            if raised or called:
                for one in ast.walk(node):
                    if isinstance(one, ast.Constant) and isinstance(one.value, str):
                        yield f"{name}:{one.lineno}", one.value


def test_no_problem_on_the_terminal_speaks_http() -> None:
    """Whatever is raised anywhere, what the terminal says of it has only words of its own."""
    texts = list(said())
    assert sum(HTTP.search(text) is not None for _, text in texts) > 10
    assert [(at, text) for at, text in texts if HTTP.search(worded(text))] == []


def test_the_options_that_are_named_are_there() -> None:
    """An option that stands for a header is one of a command's."""
    known: set[str] = set()
    left = [make_parser()]
    while left:
        for action in left.pop()._actions:
            known |= set(action.option_strings)
            if isinstance(action.choices, dict):
                left += action.choices.values()
    named = {word for _, ours in _WORDS for word in re.findall(r"--[a-z-]+", ours)}
    assert named
    assert named <= known


@pytest.mark.parametrize(
    "error, text",
    [
        (
            PurposeError(),
            "Say why with --purpose; a case or ticket number, where needed, with --re",
        ),
        (InvalidRequestError("say until when: ?until=2026-12-31"), "say until when: --until 2026"),
        (InvalidRequestError("Access-Approval must be an id"), "--approval must be an id"),
    ],
)
def test_an_error_names_the_option(
    error: Exception, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line of a command says it so."""
    assert _say(error) == 1
    assert capsys.readouterr().err.startswith(f"portvault: {text}")
