"""Whoever calls the API learns that a part is away, and no path, host or address of the server."""

import importlib
import json
import logging
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

import keys
import vault as package
from keys.errors import KeysError
from tests.fixtures_server import NUMBERS, Api
from vault.context import Vault
from vault.errors import (
    RecordsUnavailableError,
    StreamAgeError,
    UnavailableError,
    VaultError,
)
from vault.web.console.handlers import _refused
from vault.web.problems import problems, type_of
from vault.web.routes import ROUTES

#: An address of each kind that an error of a part may hold.
PLACES = (
    "/srv/portvault/objects/uk",
    "file:/etc/keys?passphrase-file=/run/secret",
    "postgresql://vault:secret@db.internal:5432/vault",
    "https://minio.internal:9000/bucket",
    "transit:https://bao.internal:8200/transit",
    "pkcs11:token=uk?module-path=/usr/lib/softhsm.so",
    "smtp://mail.internal:25",
)
PLACE = re.compile(r"(?<![\w.])/(?!v1/)\w[\w.-]*/[\w.-]+|\w:/|\.internal")
#: What stands for a place in the text of an error.
TOLD_PLACE = re.compile(r"\{[^}]*(path|url|host|address|error}|error!|str\(error)[^}]*\}")
#: Their words are written for whoever calls, each where it is raised, and hold no place.
OWN_WORDS = {UnavailableError, RecordsUnavailableError, StreamAgeError}


def parts_away() -> list[type[Exception]]:
    """Return every error that means that a part of the vault is away, damaged or in doubt."""
    for one in (package, keys):
        for module in pkgutil.walk_packages(one.__path__, f"{one.__name__}."):
            importlib.import_module(module.name)
    found: set[type[Exception]] = set()
    left: list[type[Exception]] = [VaultError, KeysError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        meant = type_of(kind.__new__(kind))
        if (meant is None or meant.status >= 500) and kind not in OWN_WORDS:
            found.add(kind)
    ours = ("vault.commands.", "vault.trials.", "tests.")
    return sorted(
        (kind for kind in found if not kind.__module__.startswith(ours)), key=lambda k: k.__name__
    )


def with_words(kind: type[Exception], words: str) -> Exception:
    """Return an error whose message is `words`, whatever its class makes of its arguments."""
    error = kind.__new__(kind)
    Exception.__init__(error, words)
    return error


@pytest.mark.parametrize("kind", parts_away(), ids=lambda one: one.__name__)
async def test_no_answer_holds_the_words_of_a_part(kind, caplog) -> None:
    """Each error of a part is answered by a sentence of its type, and its words are logged."""
    for place in PLACES:
        error = with_words(kind, f"{place} cannot be reached")

        async def fail(_: web.Request, error: Exception = error) -> web.StreamResponse:
            raise error

        answer = await problems(make_mocked_request("GET", "/v1/orders"), fail)
        assert isinstance(answer, web.Response)
        assert answer.status >= 500
        assert place not in str(answer.text)
        assert not PLACE.search(json.loads(str(answer.text))["detail"])
        if isinstance(error, VaultError) and type_of(error) is not None:
            assert not PLACE.search(str(_refused(error).text))


def test_the_words_that_are_answered_hold_no_place() -> None:
    """What has its own words raises them with numbers and names of regions alone."""
    names = "|".join(kind.__name__ for kind in OWN_WORDS)
    allowed = {"", "hint", "self._message(region)", "retry", "str(error)"}
    told = re.compile(rf'raise ({names})\(\s*((?:f?"[^"]*"\s*)+|[^)]*\)?)')
    root = Path(package.__file__).parent
    found = [
        (path.name, match[2].strip())
        for path in sorted(root.rglob("*.py"))
        # Commands speak to their own terminal.
        if "commands" not in path.parts
        for match in told.finditer(path.read_text())
    ]
    assert len(found) > 8
    for name, words in found:
        if words.startswith(('"', 'f"')):
            assert not re.search(
                r"\{[^}]*(path|url|host|address|error}|error!|str\(error)[^}]*\}", words
            ), name
        else:
            assert words.rstrip(")") + ")" * words.count("(") in allowed, (name, words)


async def _lose_objects(vault: Vault) -> None:
    Path(vault.config.objects_uri("uk").removeprefix("dir:")).rename(vault.config.home / "away")


async def _lose_keys(vault: Vault) -> None:
    place = Path(vault.config.custodian_uri("uk").removeprefix("file:"))
    for key in place.glob("uk-*.key"):
        key.unlink()
    vault.keyring.forget()


async def _lose_key_directory(vault: Vault) -> None:
    shutil.rmtree(Path(vault.config.custodian_uri("uk").removeprefix("file:")))
    vault.keyring.forget()


async def _lose_database(vault: Vault) -> None:
    await vault.pool.close()


@pytest.mark.parametrize(
    "lose",
    [_lose_objects, _lose_keys, _lose_key_directory, _lose_database],
    ids=lambda f: f.__name__,
)
async def test_no_route_tells_where_a_lost_part_was(
    lose: Any, vault: Vault, api: Api, passport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Every route is called with a part lost: no answer has a place in it."""
    order = await api.order()
    _, document = await api.put(order, passport)
    await lose(vault)
    caplog.set_level(logging.WARNING)
    away, home = 0, str(vault.config.home)
    for route in ROUTES:
        path = route.path.replace("{region}", "uk").replace("{id}", str(document["id"]))
        if route.path.startswith("/v1/orders"):
            path = route.path.replace("{id}", order)
        path = re.sub(r"{[^}]+}", "0", path) + ("?kind=passport" if route.body == "file" else "")
        for role in ("porting", "admin", "compliance"):
            status, body, _ = await api.call(
                route.method,
                path,
                role=role,
                headers={"Access-Purpose": "verify-identity", "Content-Type": route.body or ""}
                if route.body != "file"
                else {},
                data=passport
                if route.body == "file"
                else json.dumps({"region": "uk", "customer": "a", "numbers": NUMBERS}),
            )
            text = body.decode(errors="replace") if isinstance(body, bytes) else json.dumps(body)
            assert home not in text, (route.path, text)
            if status >= 500:
                assert not PLACE.search(text), (route.path, text)
                away += status == 503
    assert away > 0
