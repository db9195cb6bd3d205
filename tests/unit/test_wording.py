"""What the terminal says of a problem: no header, no address, no query."""

import ast
import json
import os
import re
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from vault.cli import _say
from vault.commands.http import call
from vault.commands.parser import make_parser
from vault.commands.wording import _OPTIONS, _WORDS, problem_worded, worded
from vault.domain.access import PurposeError
from vault.errors import InvalidRequestError
from vault.web.routes import openapi

ROOT = Path(__file__).parents[2]
#: Headers have capitals on both sides of a hyphen.
HTTP = re.compile(
    r"\b[A-Z][A-Za-z0-9]+-[A-Z][A-Za-z]+\b|[?&]\w+=|Authorization|Bearer|/v1/"
    r"|\b(GET|POST|PATCH|DELETE) /"
)
#: Names of HTTP headers that are no parameter, and words that look like a header.
ELSEWHERE = {"vault/web/console", "vault/audit/auditor.py", "vault/mail", "vault/sandbox"}


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


def test_an_error_fits_the_terminal_and_is_one_line_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People read lines of their terminal's width; a script reads one."""
    long = "what is wrong and what to do about it " * 9
    _say(InvalidRequestError(long))
    assert len(capsys.readouterr().err.splitlines()) == 1
    outside, inside = os.openpty()
    termios.tcsetwinsize(inside, (24, 72))
    with os.fdopen(inside, "w", buffering=1) as terminal, os.fdopen(outside, "rb", 0) as seen:
        monkeypatch.setattr(sys, "stderr", terminal)
        _say(InvalidRequestError(long))
        lines = seen.read(4096).decode().splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 72
    assert " ".join(lines) == f"portvault: {long.strip()}"


def test_no_problem_on_the_terminal_speaks_http() -> None:
    """Whatever is raised anywhere, what the terminal says of it has only words of its own."""
    texts = list(said())
    assert sum(HTTP.search(text) is not None for _, text in texts) > 10
    assert [(at, text) for at, text in texts if HTTP.search(worded(text))] == []


def members(found: object) -> Iterator[str]:
    """Yield the name of each parameter and of each member of a body that the API takes."""
    if isinstance(found, dict):
        if "in" in found:
            yield found["name"]
        yield from found.get("properties", {})
        for name, inner in found.items():
            if name != "responses":
                yield from members(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from members(inner)


def test_no_problem_on_the_terminal_speaks_of_members() -> None:
    """What the API calls a member or a parameter is an option here, as it is spelled here."""
    spelled = {name for name in members(openapi()) if "_" in name}
    assert {"effective_at", "due_before", "customer_reference"} <= spelled
    places = ("vault/web", "vault/actions", "vault/domain")
    # A word alone names a column.
    texts = [text for at, text in said() if at.startswith(places) and " " in text]
    found = [(name, text) for name in spelled for text in texts if re.search(rf"\b{name}\b", text)]
    assert len(found) > 4
    assert [(name, text) for name, text in found if name in problem_worded(text)] == []


@pytest.mark.parametrize(
    "detail, text",
    [
        ("numbers[1] is not a valid E.164 telephone number", "number 2 is not a valid E.164"),
        ("from is in the future: nothing yet", "--from is in the future"),
        ("keep: write a duration", "--keep: write a duration"),
        ("the region is another one; kind must be one of loa", "the region is another one; --kind"),
        (
            "there is no action 'x'; all of them stand in /openapi.json, for the parameter action",
            "there is no action 'x'; --help lists all of them",
        ),
    ],
)
async def test_a_problem_of_the_api_is_told_in_the_terminals_words(detail: str, text: str) -> None:
    """Wherever a command prints it: the words are changed where the answer is read."""

    async def refuse(request: web.Request) -> web.Response:
        body = json.dumps({"type": "about:blank", "detail": detail})
        return web.Response(status=422, text=body, content_type="application/problem+json")

    app = web.Application()
    app.router.add_get("/", refuse)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        with pytest.raises(InvalidRequestError, match=re.escape(text)):
            await call(http, "GET", str(server.make_url("/")))


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
    named |= set(_OPTIONS.values())
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
