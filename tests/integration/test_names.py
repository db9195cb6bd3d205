"""Beside each principal of an answer stands what it was called when it acted."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures_server import OPERATOR, Api
from tests.integration.test_break_glass import sealed
from vault.actions.credentials import list_tokens
from vault.commands.output import table
from vault.commands.parser import make_parser
from vault.commands.tokens import _COLUMNS as TOKEN_COLUMNS
from vault.context import Vault
from vault.domain.people import ACTORS, called
from vault.web.routes import ROUTES
from vault.web.schemas import SCHEMAS

ID = {"type": "string", "format": "uuid"}
#: What `principal` is in an answer: of a record, with its name as the search says it.
RECORDED = {"principal"}
LISTS = (
    "/v1/approvals",
    "/v1/break-glass",
    "/v1/holds",
    "/v1/holds/{id}",
    "/v1/retention/instructions",
    "/v1/documents/{id}",
    "/v1/documents/{id}/retention",
    "/v1/orders/{id}",
)
COMMANDS = ("approval list", "break-glass list", "hold list", "retention instructions")


def fields(schema: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield every field of a schema with the fields that it stands beside."""
    if isinstance(schema, list):
        for item in schema:
            yield from fields(item)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield from fields(SCHEMAS[schema["$ref"].rpartition("/")[2]])
        beside = schema.get("properties", {})
        yield from ((name, shape, beside) for name, shape in beside.items())
        for part in schema.values():
            yield from fields(part)


def actors(shown: Any) -> Iterator[tuple[str, str, str | None]]:
    """Yield every principal of an answer: its field, its id and its name."""
    if isinstance(shown, list):
        for item in shown:
            yield from actors(item)
    elif isinstance(shown, dict):
        for name, value in shown.items():
            if name in ACTORS and isinstance(value, str):
                yield name, value, shown[called(name)]
            yield from actors(value)


def test_whatever_may_hold_a_principal_has_its_name_beside_it() -> None:
    """Of every schema: who did it is told by a field that is known to be a principal."""
    found = set[str]()
    for name, shape, beside in fields(list(SCHEMAS.values())):
        told = name == "by" or name.endswith("_by") or name in RECORDED
        if told and "uuid" not in str(shape):
            found.add(name)
            assert called(name) in beside, name
    assert found >= {"requested_by", "placed_by", "sealed_by", "given_by", "by", "principal"}
    showing = {
        route.path
        for route in ROUTES
        if route.method == "GET"
        and route.answer in SCHEMAS
        and {name for name, _, _ in fields(SCHEMAS[route.answer])} & set(ACTORS)
    }
    assert showing == set(LISTS), "walked below"


async def test_a_token_that_is_renamed_keeps_its_name_in_what_it_did_before(
    api: Api,
    vault: Vault,
    passport: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In each list, in the log and in the terminal: nowhere is anybody an id alone."""
    order = await api.order()
    _, document = await api.put(order, passport)
    hold = {"region": "uk", "reason": "a dispute", "authority": "court", "customers": ["other"]}

    async def post(path: str, role: str, **body: Any) -> dict[str, Any]:
        status, said, _ = await api.call("POST", path, json=body, role=role)
        assert status in (200, 201), said
        return dict(said)

    made = await post("/v1/holds", "dpo", **hold)
    await post(f"/v1/documents/{document['id']}/actions/restrict", "dpo", reason="contested")
    await post("/v1/retention/instructions", "porting", region="uk", customer="a", keep="P30D")
    await sealed(api)
    asked = {"act": "hold.release", "subject": made["id"], "region": "uk", "reason": "case-closed"}
    approval = await post("/v1/approvals", "dpo", **asked)
    await post(f"/v1/approvals/{approval['id']}/actions/approve", "compliance")
    await post(
        f"/v1/holds/{made['id']}/actions/release", "dpo", reason="over", approval=approval["id"]
    )
    (dpo,) = [row["id"] for row in await list_tokens(vault, OPERATOR) if row["label"] == "dpo"]
    rename = f"/v1/tokens/{dpo}/actions/rename"
    for role, label, expected in (
        ("dpo", "mine", 403),
        ("compliance", "mine", 403),
        ("admin", "", 422),
        ("admin", "office", 200),
    ):
        status, _, _ = await api.call("POST", rename, json={"label": label}, role=role)
        assert status == expected, (role, label)
    missing = f"/v1/tokens/{UUID(int=7)}/actions/rename"
    assert (await api.call("POST", missing, json={"label": "x"}, role="admin"))[0] == 404
    later = await post("/v1/holds", "dpo", **hold)
    assert (made["placed_by_name"], later["placed_by_name"]) == ("dpo", "office")
    seen = set[tuple[str, str | None]]()
    for path in LISTS:
        thing = {"/v1/holds": made["id"], "/v1/orders": order}.get(path[:10].rstrip("/"))
        where = path.replace("{id}", thing or document["id"])
        role = "porting" if path.startswith("/v1/orders") else "dpo"
        status, said, _ = await api.call("GET", where, role=role)
        assert status == 200, (where, said)
        found = list(actors(said))
        # The desk is told no more of a restriction than that there is one.
        assert found or path == "/v1/orders/{id}", path
        assert all(name for _, _, name in found), (path, found)
        seen |= {(field, name) for field, _, name in found}
    assert seen >= {
        *(("requested_by", "admin"), ("approved_by", "compliance"), ("placed_by", "dpo")),
        *(("placed_by", "office"), ("released_by", "dpo"), ("given_by", "porting"), ("by", "dpo")),
        ("sealed_by", "admin"),
    }
    query = "/v1/access-records?region=uk&action=hold.place&principal=office"
    _, page, _ = await api.call("GET", query, role="compliance")
    assert {row["principal_name"] for row in page["data"]} == {"dpo", "office"}
    (told,) = await vault.pool.fetch(
        "select * from access_record where action = 'token.rename' and result = 'completed'"
    )
    assert (told["reason"], "office" in str(dict(told))) == (f"token:{dpo}", False)
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["dpo"])
    for command in COMMANDS:
        args = make_parser().parse_args(command.split())
        await args.run(args)
        out = capsys.readouterr().out
        assert "token:" not in out, command
    assert "token:" not in table(await list_tokens(vault, OPERATOR), TOKEN_COLUMNS)
