"""Problems: each error has a type, each type a place in the documents and in the description."""

import importlib
import pkgutil
import re
from functools import cache
from http import HTTPStatus
from pathlib import Path

import pytest

import keys
import vault
from keys import errors as keys_errors
from keys.errors import KeysError
from vault import errors, migrate
from vault.errors import VaultError
from vault.web.problems import BASE, BY_STATUS, DAMAGED, TYPES, problem, type_of
from vault.web.routes import openapi

ROOT = Path(__file__).parents[2]
#: What never answers a request: it ends a start, a command or a reconciler.
UNANSWERED = {
    VaultError,
    KeysError,
    errors.ConfigurationError,
    errors.ClockError,
    errors.BulkExpiryError,
    errors.DoubtError,
    errors.MailDeferredError,
    errors.MailRefusedError,
    keys_errors.MirrorUnavailableError,
    keys_errors.StandbyBehindError,
    keys_errors.SealOverdueError,
    keys_errors.RestoreRefusedError,
    keys_errors.ForeignKeysError,
    migrate.MigrationError,
}
#: Where errors are raised to the terminal alone.
COMMANDS = ("vault.commands.", "vault.commands.http", "vault.trials.demo", "vault.commands.witness")
#: What is answered before there is a route.
BEFORE_ROUTES = {"method-not-allowed", "expectation"}


def all_errors():
    """Return every error of ours, wherever it is."""
    for package in (vault, keys):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, left = set(), [VaultError, KeysError]
    while left:
        kind = left.pop()
        if kind.__module__.partition(".")[0] in {"vault", "keys"}:
            found.add(kind)
        left += kind.__subclasses__()
    return found


@cache
def described():
    """Return the statuses that some call is described as answering."""
    return {
        int(status)
        for operations in openapi()["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
    }


@cache
def code():
    """Return the text of every file that may make a problem."""
    return "\n".join(
        path.read_text()
        for package in ("vault", "keys")
        for path in (ROOT / package).rglob("*.py")
        if path.name not in {"errors.py", "problems.py"}
    )


def documented():
    text = (ROOT / "docs/api.md").read_text()
    return re.findall(r"(?m)^\| `([a-z-]+)` \| (\d{3}) \| ([^|]+) \| [^|]+[.)`] \|$", text)


def test_each_error_is_a_type_of_problem_or_never_answers() -> None:
    """Whoever adds an error says which problem it is, or that no request ever meets it."""
    named = {error for kind in TYPES for error in kind.errors}
    silent = {
        error
        for error in all_errors()
        if not error.__module__.startswith(COMMANDS)
        # What a module raises to itself goes no further.
        and not error.__name__.startswith("_")
        and type_of(error.__new__(error)) is None
    }
    assert silent == UNANSWERED
    assert named <= all_errors()


def test_the_types_are_documented_as_they_are() -> None:
    """The page has each type with its status and title, once, in the same order."""
    assert documented() == [(one.name, str(one.status), one.title) for one in TYPES]


def test_a_type_is_one_uri() -> None:
    """No name stands twice, each is a word, each status is one of HTTP's."""
    names = [one.name for one in TYPES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)
    assert {HTTPStatus(one.status) for one in TYPES} == set(map(HTTPStatus, BY_STATUS))


@pytest.mark.parametrize("kind", TYPES, ids=lambda one: one.name)
def test_each_type_is_met(kind) -> None:
    """Some line of the vault makes each problem, and some call is described as answering it."""
    assert kind.status in described() or kind.name in BEFORE_ROUTES
    makers = [error.__name__ for error in kind.errors] or [kind.name.upper().replace("-", "_")]
    raised = re.search(rf"\b({'|'.join(makers)})\b", code())
    # The library's own answers have the type of their status.
    assert raised or kind is BY_STATUS[kind.status]


def test_the_description_lists_every_type() -> None:
    """A generated client has a word for each type."""
    assert openapi()["components"]["schemas"]["ProblemType"]["enum"] == [one.uri for one in TYPES]


@pytest.mark.parametrize("kind", TYPES, ids=lambda one: one.name)
def test_a_problem_says_what_its_schema_says(kind) -> None:
    """Type, title and status stand in each problem as they stand in the table."""
    answer = problem(kind, "said so")
    assert answer.status == kind.status
    assert answer.content_type == "application/problem+json"
    assert f'"type": "{BASE}{kind.name}"' in (answer.text or "")
    assert ("Retry-After" in answer.headers) == (kind.status == 503 and kind is not DAMAGED)
