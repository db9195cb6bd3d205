"""Why a thing is held or restricted is for those who read holds; others learn that it is."""

import json
from typing import Any

import pytest

from tests.fixtures_server import OPERATOR, Api
from tests.integration.test_everything_is_recorded import BODY, QUERY, example
from vault.actions.credentials import create_token
from vault.context import Vault
from vault.domain.access import ALLOWED, Action, Role
from vault.domain.credentials import Grant
from vault.web.routes import ROUTES
from vault.web.schemas import SCHEMAS

UK = frozenset({"uk"})
READERS = {role for role in Role if Action.HOLD_READ in ALLOWED[role]}
TOKENS = {
    **{role.value: Grant(role, UK) for role in Role},
    "of-a-customer": Grant("porting", UK, customers=frozenset({"acme"})),
    "of-a-kind": Grant("porting", UK, kinds=frozenset({"passport"})),
}
#: What only the case knows.
WORDS = ("laundering", "crime-agency", "CASE-77", "contested-identity", "second-case")


def body_of(name: str | None) -> Any:
    """Return a body that a route understands."""
    return None if name in (None, "file") else BODY.get(name or "") or example(SCHEMAS[name or ""])


async def held(api: Api, passport: bytes) -> tuple[str, str, str, str]:
    """Hold a living and a shredded document, restrict the living; return ids to ask about."""
    order = await api.order()
    _, living = await api.put(order, passport)
    _, gone = await api.put(order, passport)
    await api.call(
        "POST", f"/v1/documents/{gone['id']}/actions/shred", json={"reason": "withdrawn"}
    )
    case = {"region": "uk", "reason": "money laundering", "authority": "crime-agency"}
    status, hold, _ = await api.call(
        "POST",
        "/v1/holds",
        role="dpo",
        json={**case, "reference": "CASE-77", "documents": [living["id"]], "orders": [order]},
    )
    assert status == 201, hold
    case = {"region": "uk", "reason": "second-case", "authority": "crime-agency"}
    status, _, _ = await api.call(
        "POST", "/v1/holds", role="dpo", json={**case, "customers": ["acme"]}
    )
    assert status == 201
    path = f"/v1/documents/{living['id']}/actions/restrict"
    await api.call("POST", path, role="dpo", json={"reason": "contested-identity"})
    return order, living["id"], gone["id"], hold["id"]


@pytest.mark.parametrize("who", sorted(TOKENS))
async def test_no_route_says_why_to_who_may_not_read_holds(
    api: Api, vault: Vault, passport: bytes, who: str
) -> None:
    """Every route, asked about everything: none of the case's words in any answer, or all of it."""
    identities = await held(api, passport)
    _, api.tokens["who"] = await create_token(vault, OPERATOR, TOKENS[who], label=who)
    said = ""
    for route in ROUTES:
        if route.public or route.body == "file":
            continue
        for identity in identities:
            path = route.path.replace("{id}", identity).replace("{region}", "uk")
            path = path.replace("{path:.+}", "0/000") + "?" + QUERY.get(route.path, "")
            _, body, response = await api.call(
                route.method,
                path,
                role="who",
                json=body_of(route.body),
                headers={"Access-Purpose": "verify-identity"},
            )
            said += json.dumps(dict(response.headers))
            said += body.decode("utf-8", "replace") if isinstance(body, bytes) else json.dumps(body)
    seen = [word for word in WORDS if word in said]
    assert seen == (list(WORDS) if TOKENS[who].role in READERS else [])


async def test_that_it_is_held_is_said_to_everybody(api: Api, passport: bytes) -> None:
    """The desk is told that a document is held and restricted, and since when; not by how many."""
    order, living, gone, _ = await held(api, passport)
    _, shown, _ = await api.call("GET", f"/v1/documents/{living}")
    assert (shown["held"], shown["holds"]) == (True, [])
    assert shown["restriction"]["since"]
    assert (shown["restriction"]["reason"], shown["restriction"]["by"]) == (None, None)
    assert shown["retention"]["state"] == "held"
    _, why, _ = await api.call("GET", f"/v1/documents/{living}/retention")
    assert (why["held"], why["holds"]) == (True, [])
    assert why["sentence"].startswith("A hold keeps it")
    _, tombstone, _ = await api.call("GET", f"/v1/documents/{gone}")
    assert (tombstone["held"], tombstone["holds"]) == (True, [])
    _, listed, _ = await api.call("GET", f"/v1/orders/{order}")
    assert [item["held"] for item in listed["documents"]] == [True, True]
    path = f"/v1/documents/{living}/actions/shred"
    status, problem, _ = await api.call("POST", path, json={"reason": "withdrawn"})
    assert (status, problem["detail"][:6]) == (423, "a hold")
    _, known, _ = await api.call("GET", f"/v1/documents/{living}", role="dpo")
    assert {hold["reason"] for hold in known["holds"]} == {"money laundering", "second-case"}
