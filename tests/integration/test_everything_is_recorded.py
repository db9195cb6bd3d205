"""Every way into the vault goes through the one place that decides and records: all are walked."""

import argparse
import ast
import contextlib
import importlib
import inspect
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import vault
from tests.access_records import append
from tests.fixtures_server import Api
from vault.app import open_vault
from vault.commands.parser import Run, make_parser
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import ConfigurationError, NotFoundError
from vault.sql.connection import Pool
from vault.web.routes import ROUTES, Route
from vault.web.schemas import SCHEMAS

RETENTION = (Path(vault.__file__).parent / "policy" / "retention.toml").read_text()
ROLES = ("porting", "compliance", "dpo", "admin", "fax-gateway", "witness", "auditor")
#: What a route needs to be understood at all, where that is more than its schema says. A route that
#: refuses what it is sent before that is recorded fails the test: say here how it is called.
QUERY = {
    "/v1/orders/{id}/documents": "kind=passport",
    "/v1/faxes": "region=uk&direction=inbound&to=%2B442079460123",
    "/v1/retention/plan": "until=2030-01-01",
    "/v1/access-records": "region=uk",
    "/v1/access-records/export": "region=uk",
    "/v1/log/checkpoint": "region=uk",
    "/v1/log/{region}/inclusion": "index=0",
    "/v1/log/{region}/consistency": "from=1",
}
BODY: dict[str, Any] = {
    "NewOrder": {"region": "uk", "customer": "a", "numbers": ["+442079460123"]},
    "OrderChange": {"status": "submitted"},
    "OrderSearch": {"region": "uk", "number": "+442079460123"},
    "ShredRequest": {"reason": "withdrawn"},
    "OrderCorrection": {"customer_reference": "R-2"},
    "KindCorrection": {"kind": "passport"},
    "Reason": {"reason": "contested"},
    "NewHold": {"region": "uk", "reason": "a dispute", "authority": "court", "customers": ["a"]},
    "HoldRelease": {"reason": "it ended", "approval": str(uuid.uuid4())},
    "NewInstruction": {"region": "uk", "customer": "a", "keep": "P30D"},
    "PolicyText": {"text": RETENTION},
    "PolicyChange": {"text": RETENTION},
    "FaxDelivered": {"result": "0"},
    "FaxFailed": {"reason": "busy"},
    "NewBreakGlass": {
        "role": "dpo",
        "regions": ["uk"],
        "days": 9,
        "approval": str(uuid.uuid4()),
    },
    "NewApproval": {
        "act": "disclosure",
        "subject": str(uuid.uuid4()),
        "region": "uk",
        "reason": "T-1",
        "purpose": "disclose-to-authority",
        "reference": "T-1",
    },
    "CarrierLink": {"carrier": "telnyx", "reference": str(uuid.uuid4())},
    "Cosignature": {"size": 1, "cosignature": "— w AAAA\n"},
}
#: Routes without a token, and why.
PUBLIC = {
    "/healthz": "says that the process is up",
    "/readyz": "says whether a document could be handed out, and shows none",
    "/metrics": "counts, by route and status",
    "/openapi.json": "says what can be called",
    "/v1/break-glass/actions/open": "has its credential in the body, and is recorded as that",
    "/v1/hooks/telnyx": "signed by the carrier, and recorded as it when it changes an order",
    "/v1/hooks/twilio": "the same",
    "/v1/hooks/bandwidth": "the same",
}
#: Commands that reach no document, no key's use and no record, and why.
EXEMPT = {
    "serve": "runs the server, whose routes are walked",
    "worker": "runs the reconcilers, which record as the worker",
    "migrate": "changes the schema, before there is a log",
    "doctor": "looks whether the parts answer",
    "config": "prints settings, with secrets masked",
    "log key": "prints the public half of a key",
}


def example(schema: dict[str, Any]) -> Any:
    """Return something that a schema describes."""
    if "$ref" in schema:
        return example(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return example(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "uuid":
        return str(uuid.uuid4())
    kind = schema.get("type", "string")
    if kind == "object":
        needed = schema.get("required", [])
        return {name: example(schema["properties"][name]) for name in needed}
    if kind == "array":
        return [example(schema["items"])]
    return {"integer": 1, "boolean": True}.get(kind, "T-1")


async def intents(pool: Pool) -> int:
    """Return how many accesses were decided on."""
    found: int = await pool.fetchval("select count(*) from access_record where phase = 'intent'")
    return found


def address(route: Route) -> str:
    """Return where a route is called, with ids that nobody has."""
    path = route.path.replace("{path:.+}", "0/000.p/1").replace("{region}", "uk")
    query = QUERY.get(route.path, "") if route.method != "GET" or route.path in QUERY else ""
    if route.path == "/v1/faxes" and route.method == "GET":
        query = ""
    return path.replace("{id}", str(uuid.uuid4())) + (f"?{query}" if query else "")


async def test_every_route_is_recorded_whoever_asks(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Allowed or refused, each call of each role leaves an intent before it is answered."""
    around = []
    for route in (route for route in ROUTES if not route.public):
        options: dict[str, Any] = {}
        if route.body is not None:
            file = route.body == "file"
            body = None if file else BODY.get(route.body) or example(SCHEMAS[route.body])
            options = {"data": passport} if file else {"json": body}
        for role in ROLES:
            before = await intents(vault.pool)
            status, said, _ = await api.call(route.method, address(route), role=role, **options)
            if await intents(vault.pool) <= before:
                around.append((route.method, route.path, role, status, said))
    assert around == []
    assert {route.path for route in ROUTES if route.public} == set(PUBLIC)


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Run]]:
    """Yield every command with what runs it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                run = below.get_default("run")
                if run:
                    yield " ".join((*path, name)), run
                yield from commands(below, (*path, name))


def imports(run: Run) -> set[str]:
    """Return what the module of a command imports; of one that calls another, that one's."""
    module = sys.modules[run.__module__]
    for name in ("log_proofs", "witness"):
        if f"{name}." in inspect.getsource(run):
            module = importlib.import_module(f"vault.commands.{name}")
    assert module.__file__ is not None
    return {
        node.module
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }


ALL = dict(commands(make_parser()))
LOCAL = {
    name
    for name, run in ALL.items()
    if name not in EXEMPT and imports(run) & {"vault.app", "vault.commands.operator"}
}
#: How the commands that open the vault themselves are called.
CALLED = {
    "token create": ["--role", "porting", "--region", "uk"],
    "token list": [],
    "token rename": [str(uuid.uuid4()), "desk-2"],
    "token revoke": [str(uuid.uuid4())],
    "log verify": ["--region", "uk"],
    "log rotate-key": [],
    "log forget-name": ["token:x"],
    "keys status": ["--region", "uk"],
    "keys seal": ["--region", "uk"],
    "keys verify": ["--region", "uk"],
    "keys rotate-custodian": ["--region", "uk"],
    "repair": ["--region", "uk"],
    "backup": ["FILE"],
    "restore": ["--region", "uk", "--dry-run"],
}


def test_every_other_command_speaks_to_the_server() -> None:
    """What neither opens the vault nor is exempt with a reason goes over HTTP: it is walked."""
    assert set(EXEMPT) <= set(ALL)
    assert set(CALLED) == LOCAL
    for name in set(ALL) - LOCAL - set(EXEMPT):
        assert "vault.commands.http" in imports(ALL[name]), name


@pytest.mark.parametrize("name", sorted(CALLED))
async def test_every_command_that_opens_the_vault_is_recorded(
    config: Config,
    pool: asyncpg.Pool,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Done or refused, it leaves an intent under the name of the account that ran it."""
    for variable, value in (
        ("HOME", str(config.home)),
        ("DATABASE", config.database),
        ("REGIONS", "uk,sg"),
    ):
        monkeypatch.setenv(f"PORTVAULT_{variable}", value)
    async with open_vault(config) as vault:
        await append(vault, 1)
    arguments = [str(tmp_path / "dump") if word == "FILE" else word for word in CALLED[name]]
    args = make_parser().parse_args([*name.split(), *arguments])
    before = await intents(pool)
    # There is no such token, and no custodian to move away from.
    with contextlib.suppress(NotFoundError, ConfigurationError):
        await args.run(args)
    assert await intents(pool) > before
    newest = await pool.fetchval(
        "select principal from access_record where phase = 'intent' order by at desc limit 1"
    )
    assert newest.startswith("operator:")
